"""The live panel of every algorithm's notebook in real JupyterLab in real Chromium, from the notebook's own cells."""

import builtins
import json
import re
import symtable
from pathlib import Path

import pytest
from browser import (
    drag,
    jupyterlab,
    open_notebook,
    run_all,
    said_by_the_kernel,
    slider,
    wait_until_idle,
    write_notebook,
)
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def names(source):
    """Names that a cell reads from cells before it, and names that it makes."""
    top = symtable.symtable(source, "cell", "exec")
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    read = {s.get_name() for s in top.get_symbols() if s.is_referenced() and s.get_name() not in made}
    inner = top.get_children()
    while inner:
        table = inner.pop()
        inner += table.get_children()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.get_name() not in made}
    return read - {*dir(builtins)}, made


def cells_of_panel(cells):
    """The cell that ends in a panel, and those before it that make what it needs, in their order; None without."""
    ends = [i for i, cell in enumerate(cells) if "= LiveTraining(" in cell and cell.rstrip().endswith("\npanel")]
    if not ends:
        return None
    chosen, needed = [cells[ends[0]]], names(cells[ends[0]])[0]
    for cell in reversed(cells[: ends[0]]):
        read, made = names(cell)
        if needed & made:
            chosen, needed = [cell, *chosen], needed - made | read
    # However slow the browser is, the run must not come to its end before the test has.
    return [re.sub(r"max_steps=\d+", "max_steps=10**8", cell) for cell in chosen]


WITH_PANEL = {path.stem: cells for path in NOTEBOOKS if (cells := cells_of_panel(code_cells(path)))}


def test_every_algorithm_has_a_panel():
    assert {name[:2] for name in WITH_PANEL} == {f"{number:02}" for number in range(2, 14)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panels")
    with jupyterlab(folder) as address:
        for name, cells in WITH_PANEL.items():
            write_notebook(folder / "course" / f"{name}.ipynb", *cells)
        yield address


#: What the kernel compiles when a panel's `show=` is called once more: nothing, or each look would stop the training.
COMPILED = """
import jax
model, key, compiled = panel.model(0), jax.random.fold_in(jax.random.key(0), 1), []
panel._show and panel._show(model, key)
listen = lambda event, seconds, **more: compiled.append(more.get("fun_name")) if "backend_compile" in event else None
jax.monitoring.register_event_duration_secs_listener(listen)
panel._show and panel._show(model, key)
print(compiled)"""


def wait_for(page, condition, what, seconds=180):
    for _ in range(20 * seconds):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"in vain: {what}")


@pytest.mark.parametrize("name", WITH_PANEL)
def test_the_panel_of_a_notebook_is_steered_while_it_trains(lab, page, name):
    open_notebook(page, lab, f"{name}.ipynb")
    run_all(page)
    wait_until_idle(page)
    panel = page.locator(".artifex.live").first
    start, pause, reset = (panel.get_by_role("button", name=name, exact=True) for name in ("Start", "Pause", "Reset"))
    expect(start).to_be_enabled(timeout=60_000)
    assert not panel.locator(".error:visible").count(), panel.locator(".error").inner_text()

    def step():
        return int(panel.locator(".figure svg").get_attribute("data-step"))

    def curves():
        return panel.locator('.figure svg [id*="-line-"] path').evaluate_all(
            "all => all.map(p => p.getAttribute('d'))"
        )

    def marks():
        return panel.locator(".figure svg .marks").first.locator("line").count()

    def latest_mark():
        return panel.locator(".figure svg .marks").first.text_content()

    def reading():
        return panel.locator("output").first.inner_text()

    first = step()
    start.click()
    wait_for(page, lambda: step() > first, "a first step")
    before, shown, stood_at = step(), curves(), reading()
    drag(page, slider(panel, 0), 0.5, 0.65)
    assert reading() != stood_at
    wait_for(page, lambda: latest_mark().endswith(f" {reading()}"), "the mark of the move")
    wait_for(page, lambda: step() > before + 1 and curves() != shown, "points after the move")
    assert pause.count() == 1  # it trained on

    pause.click()
    expect(start).to_be_visible(timeout=5000)
    stood = step()
    page.wait_for_timeout(500)
    assert step() == stood
    assert panel.locator(".figure svg").get_attribute("aria-label") == panel.locator(".summary").inner_text()

    reset.click()
    wait_for(page, lambda: step() == 0 and marks() == 0, "the start")
    assert said_by_the_kernel(page, COMPILED) == "[]"
