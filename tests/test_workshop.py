"""The workshop kit: plans add up, what they name exists, and the limits rest on what was measured."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml

from artifex_rl.lab import course
from artifex_rl.lab.checks import registered
from artifex_rl.lab.course import main as hand_out
from artifex_rl.lab.doctor import CHECKS, machine

ROOT = Path(__file__).parent.parent
KIT = ROOT / "docs" / "workshop"
PLANS = {"plan_90_minutes.md": 90, "half_day.md": 240}
NAME = re.compile(r"\*\*(\d\d) · (.+?)\*\*")


@cache
def cells(number: str) -> tuple[tuple[str, nbformat.NotebookNode], ...]:
    """The cells of a notebook, each with the section that it belongs to: the last heading up to its end."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    section, found = "", []
    for cell in nbformat.read(path, 4).cells:
        headings = re.findall(r"(?m)^##+ (.+)$", cell.source) if cell.cell_type == "markdown" else []
        section = headings[-1] if headings else section
        found.append((section, cell))
    return tuple(found)


def section_names(number: str) -> set[str]:
    markdown = "\n".join(cell.source for _, cell in cells(number) if cell.cell_type == "markdown")
    return set(re.findall(r"(?m)^##+ (.+)$", markdown))


def rows(plan: str) -> list[list[str]]:
    """The rows of a plan's table: from, minutes, where, what happens, what to ask."""
    lines = [line for line in (KIT / plan).read_text().splitlines() if re.match(r"\| \d:\d\d \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def noted(number: str, sections: list[str]) -> list[int]:
    """The minutes that the notes of these sections ask for."""
    return [cell.metadata.get("teaching", {}).get("minutes", 0) for at, cell in cells(number) if at in sections]


def exercise(number: str, title: str) -> nbformat.NotebookNode:
    (found,) = [cell for _, cell in cells(number) if f"**{title}**" in cell.source]
    return found


@pytest.mark.parametrize("plan", PLANS)
def test_the_minutes_add_up(plan):
    clock = 0
    for start, minutes, *_ in rows(plan):
        assert start == f"{clock // 60}:{clock % 60:02d}"
        clock += int(minutes)
    assert clock == PLANS[plan]


def test_the_titles_say_how_long_they_take():
    assert (KIT / "plan_90_minutes.md").read_text().startswith("# A class of 90 minutes\n")
    assert (KIT / "half_day.md").read_text().startswith("# Half a day: four hours\n")


@pytest.mark.parametrize("page", sorted(KIT.glob("*.md")), ids=lambda path: path.name)
def test_every_section_that_is_named_exists(page):
    for number, name in NAME.findall(page.read_text().replace("\n", " ")):
        assert name in section_names(number), f"{page.name}: {number} · {name}"


@pytest.mark.parametrize("plan", PLANS)
def test_every_row_but_a_break_names_a_section_and_gives_it_the_time_that_its_notes_ask_for(plan):
    for start, minutes, where, *_ in rows(plan):
        if where == "break":
            continue
        ((number, section),) = NAME.findall(where)
        named = re.findall(r"(Exercise \d · [^,]+)", where.split("**")[-1])
        if named:
            asked = [exercise(number, title).metadata.teaching.minutes for title in named]
        else:
            asked = noted(number, [section])
        assert sum(asked) <= int(minutes), f"{plan}, {start}: {section} asks for {sum(asked)} minutes"


@pytest.mark.parametrize("plan", PLANS)
def test_every_explorer_and_check_of_a_row_is_in_its_notebook(plan):
    seen = 0
    for _, _, where, happens, ask in rows(plan):
        if where == "break":
            continue
        number = NAME.findall(where)[0][0]
        code = "\n".join(cell.source for _, cell in cells(number) if cell.cell_type == "code")
        for widget in re.findall(r"`(\w+(?:Explorer|Training))`", happens + ask):
            assert f"{widget}(" in code, f"{number}: {widget}"
            seen += 1
        for name in re.findall(r'`check\("(\w+)"\)`', happens + ask):
            assert f'check("{name}")' in code and name in registered(), f"{number}: {name}"
            seen += 1
    assert seen >= 6


def test_the_plan_counts_its_explorers():
    text = (KIT / "plan_90_minutes.md").read_text()
    assert "four explorers and a live panel" in text
    assert len(set(re.findall(r"`(\w+Explorer)`", text))) == 4 and "`LiveTraining`" in text


def test_alternatives_take_as_long_as_is_said():
    text = (KIT / "half_day.md").read_text()
    for number, minutes in re.findall(r"take (0\d) in the place of 03:(?:.|\n)*?take (\d\d)\b", text):
        paragraph = re.search(rf"take {number} in the place of 03:(?:.|\n)*?\n\n", text)[0].replace("\n", " ")
        named = [name for at, name in NAME.findall(paragraph) if at == number]
        asked = noted(number, named)
        assert len(named) == 3 and sum(asked) == int(minutes)


@pytest.mark.parametrize("page", sorted(KIT.glob("*.md")), ids=lambda path: path.name)
def test_links_within_the_kit_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (KIT / target).is_file(), target


def test_the_table_of_the_doctor_has_every_check():
    table = re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)*) \|", (KIT / "index.md").read_text())
    assert [name for cell in table for name in re.findall(r"\w+", cell)] == list(CHECKS)


# The limits


def measured() -> tuple[int, dict[str, list[float]]]:
    """The server's megabytes, and of each notebook the numbers of its row."""
    text = (KIT / "binder_and_jupyterhub.md").read_text()
    lines = re.findall(r"(?m)^\| (\d\d) \| (.+) \|$", text)
    server = int(re.search(r"(\d+) MB at rest", text)[1])
    return server, {name: [float(cell) for cell in row.split("|")] for name, row in lines}


def test_every_notebook_was_measured_and_the_doctors_limits_rest_on_it():
    server, table = measured()
    assert sorted(table) == sorted(path.stem[:2] for path in (ROOT / "notebooks").glob("*.ipynb"))
    peak = max(row[5] for row in table.values())
    assert peak * 2**20 < machine.KERNEL_BYTES
    assert (peak + server) * 2**20 < machine.LEARNER_BYTES


def test_the_configuration_of_a_hub_is_yaml_and_has_room_for_what_was_measured():
    text = (KIT / "binder_and_jupyterhub.md").read_text()
    (config,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S))
    memory = {name: int(value.removesuffix("M")) * 10**6 for name, value in config["singleuser"]["memory"].items()}
    server, table = measured()
    peaks = [row[5] for row in table.values()]
    assert memory["limit"] > (server + 2 * max(peaks)) * 2**20
    assert memory["guarantee"] > (server + max(peaks)) * 2**20
    assert config["singleuser"]["cpu"]["limit"] >= 1
    culling = config["singleuser"]["extraFiles"]["jupyter_server_config.json"]["data"]["MappingKernelManager"]
    assert culling["cull_connected"] is False and culling["cull_busy"] is False


def test_the_command_that_a_hub_runs_trusts_what_it_copies_and_keeps_what_was_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "artifex_rl_course"
    hand_out([str(folder)])
    monkeypatch.setattr(course, "find_course", lambda: (folder, False))
    assert machine.check_notebooks().status == "ok"

    monkeypatch.undo()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    mine = folder / "00_start_here.ipynb"
    mine.write_text(mine.read_text().replace("Start here", "My notes", 1))
    hand_out([str(folder)])
    assert "My notes" in mine.read_text()
    assert capsys.readouterr().out.endswith(", 1 kept as they were changed\n")
    text = (KIT / "binder_and_jupyterhub.md").read_text()
    (config,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S))
    command = config["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    assert command == ["python", "-m", "artifex_rl.lab.course", "artifex_rl_course"]
