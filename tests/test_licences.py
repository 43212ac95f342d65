"""Whatever is not ours has its source and its licence in README, and nothing stands there that is gone."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
from documents import ROOT, WRITTEN
from packaging.requirements import Requirement

from artifex_rl.data.digits import load_digits

LICENCES = (ROOT / "README.md").read_text("utf-8").partition("\n## Licences\n")[2].partition("\n## ")[0]
DATA = ROOT / "artifex_rl" / "data"
#: What a package's metadata may call a licence, by what README calls it.
NAMES = {"Apache-2.0": r"Apache", "BSD-3-Clause": r"BSD(-3-Clause)?", "MIT": r"MIT", "LGPL": r"LGPL|Lesser General"}
LICENCE = re.compile(r"\b(MIT|BSD-[23]-Clause|Apache-2\.0|LGPL|CC BY(?:-SA)? 4\.0)\b")


def rows() -> list[list[str]]:
    """The cells of the rows of both tables."""
    lines = [line for line in LICENCES.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def declared(package: str) -> str:
    """What the installed package says its licence is."""
    known = metadata(package)
    classifiers = [name for name in known.get_all("Classifier") or [] if name.startswith("License")]
    return " ".join([known.get("License-Expression") or "", (known.get("License") or "")[:200], *classifiers])


def data_files() -> set[str]:
    return {path.name for path in DATA.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")}


def test_every_row_names_source_and_licence():
    assert len(rows()) >= 14
    for cells in rows():
        assert len(cells) == 3 and all(len(cell) > 2 for cell in cells), cells
        assert LICENCE.search(cells[2]) or cells[2] == "licence", cells


def test_every_data_file_has_a_row_and_every_row_its_files():
    named = [name for cells in rows() for name in re.findall(r"`([\w.]+\.(?:npz|txt|json))`", cells[0])]
    assert set(named) >= data_files(), f"without a row: {data_files() - set(named)}"
    assert set(named) <= data_files(), f"not there: {set(named) - data_files()}"
    table = [name for cells in rows() if cells[0].startswith("`") for name in re.findall(r"`([\w.]+)`", cells[0])]
    assert sorted(table) == sorted(data_files()), "once each"


def test_every_data_file_is_made_by_a_script_that_is_there():
    for cells in rows():
        if cells[0].startswith("`"):
            scripts = re.findall(r"`([\w.]+\.py)`", cells[1])
            assert scripts and all((DATA / script).is_file() for script in scripts), cells
    named = set(re.findall(r"`(make_\w+\.py)`", LICENCES))
    assert named == {path.name for path in DATA.glob("make_*.py")}


def test_what_holds_somebody_else_s_work_is_under_its_licence():
    """The pictures in `scored_digits.npz` are the dataset's, so the file's licence is the dataset's."""
    pixels = {image.tobytes() for image in _pixels()}
    with np.load(DATA / "scored_digits.npz") as scored:
        copied = [image.tobytes() in pixels for image in scored["images"]]
    assert all(copied)
    (row,) = [cells for cells in rows() if "`scored_digits.npz`" in cells[0]]
    (source,) = [cells for cells in rows() if cells[0] == "handwritten digits"]
    assert "CC BY 4.0" in row[2] and source[2].startswith("CC BY 4.0")


def _pixels() -> np.ndarray:
    digits = load_digits()
    everything = np.concatenate([np.asarray(part.images) for part in digits])
    return np.round((everything + 1) * 8).astype(np.uint8)


@pytest.mark.parametrize("extra", ["data", "envs"])
def test_packages_that_bring_data_have_the_licence_that_readme_says(extra):
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"][extra]
    names = [Requirement(line).name for line in wanted] + (["pygame-ce"] if extra == "envs" else [])
    for name in names:
        lines = re.findall(rf"(?i)\b{re.escape(name)}\b[^\n]*", LICENCES)
        said = [found for line in lines for found in LICENCE.findall(line) if found in NAMES]
        assert said, f"{name}: README's licences do not name its licence"
        assert re.search(NAMES[said[0]], declared(name)), f"{name}: README says {said[0]}, it says {declared(name)}"


def test_nothing_of_others_lies_in_the_tree_unnamed():
    """Fonts, minified scripts, pictures: what is vendored has a licence that must be named."""
    ours = {".py", ".md", ".j2", ".js", ".css", ".ipynb", ".bib", ".json", ".typed", ".pyc"}
    known = {*data_files(), "explorer.gif", "explorer.png"}  # the last two are made by docs/picture.py
    for folder in ("artifex_rl", "docs", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT).as_posix()
            if not path.is_file() or "/." in f"/{inside}" or inside.startswith(tuple(f"{name}/" for name in WRITTEN)):
                continue
            assert path.suffix in ours or path.name in known, f"{inside}: whose is it?"
            if path.suffix in (".js", ".css"):
                text = path.read_text("utf-8")
                assert not re.search(r"(?i)copyright|@license|\(c\) \d{4}", text), f"{inside}: not ours"
                assert max(map(len, text.splitlines())) < 400, f"{inside}: minified, so not ours"


def test_the_notice_in_rhymes_is_the_one_that_its_licence_wants_kept():
    head = Path(DATA / "rhymes.txt").read_text("utf-8")[:3000]
    assert "Carnegie Mellon University" in head and "Redistributions of source code must retain" in head
