"""The gallery shows all there is: every explorer, every widget, every figure, each with its sentence; never stale."""

from __future__ import annotations

import base64
import inspect
import io
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from artifex_rl import lab
from artifex_rl.lab import Explorer
from artifex_rl.lab.execute import VIEW
from artifex_rl.lab.frames import pack, unpack
from artifex_rl.lab.gallery import KINDS, build, main
from artifex_rl.lab.gallery_picture import compact
from artifex_rl.lab.halftone import halftone, halftone_columns
from artifex_rl.lab.sections import anchors
from artifex_rl.lab.stored import points, sentence, stored_widgets

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "gallery"
    return build(FOLDER, out), out


def notebook(number: int) -> nbformat.NotebookNode:
    return nbformat.read(PATHS[number], as_version=4)


def bundles(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield cell.id, output.data


@pytest.mark.slow
def test_every_explorer_of_the_lab_has_its_section(gallery):
    _, out = gallery
    ready = {
        name
        for name in lab.__all__
        if inspect.isclass(getattr(lab, name)) and issubclass(getattr(lab, name), Explorer) and name != "Explorer"
    }
    assert len(ready) >= 18
    assert set(re.findall(r"^### (\w+Explorer|\w+Chooser)$", (out / "index.md").read_text("utf-8"), re.M)) == ready


@pytest.mark.slow
def test_every_picture_and_every_widget_of_every_notebook_is_there(gallery):
    found, _ = gallery
    places = {(stem, cell): p for p in found for stem, cell, *_ in p.places if not p.name.endswith("-samples")}
    shown = {(path.stem, name): data for path in PATHS for name, data in bundles(path)}
    assert set(places) == set(shown) and len(shown) > 100
    for place, data in shown.items():
        assert (VIEW in data) == (places[place].kind in ("ready", "own", "panel"))
    assert {p.kind for p in found} == set(KINDS)


@pytest.mark.slow
def test_every_picture_can_be_seen_and_heard(gallery):
    found, out = gallery
    page = (out / "index.md").read_text("utf-8")
    assert {p.name for p in out.glob("*.png")} == {f"{p.name}.png" for p in found}
    for picture in found:
        with Image.open(out / f"{picture.name}.png") as image:
            image.load()
            pixels = np.asarray(image.convert("L"))
        assert 400 <= image.width <= 1200 and image.height >= 90, picture.name
        assert np.ptp(pixels) > 100 and 0.005 < (pixels < 250).mean() < 0.95, f"{picture.name} is blank"
        assert len(picture.alt) > 30 and picture.alt.endswith("."), picture.name
        assert page.count(f"]({picture.name}.png)") == 1
    alts = re.findall(r"^!\[(.+)\]\((.+)\.png\)$", page, re.M)
    assert len(alts) == len(found) == len({alt for alt, _ in alts})
    assert sum(len(p.png) for p in found) < 3_000_000


@pytest.mark.slow
def test_every_link_leads_to_a_section_of_a_notebook(gallery):
    found, out = gallery
    links = re.findall(r"\]\(([^)\s]+\.ipynb)(?:#([^)]*))?\)", (out / "index.md").read_text("utf-8"))
    assert len(links) == sum(len(p.places) for p in found)
    known = {
        path: anchors("\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type != "code"))
        for path in PATHS
    }
    for target, anchor in links:
        path = (out / target).resolve()
        assert path in known and (not anchor or anchor in known[path]), (target, anchor)


def test_a_site_says_itself_where_its_notebooks_are(tmp_path):
    shutil.copy(PATHS[0], tmp_path)
    build(tmp_path, tmp_path / "out", link=lambda stem, anchor: f"/course/{stem}.html#{anchor}")
    page = (tmp_path / "out" / "index.md").read_text("utf-8")
    assert "(/course/00_start_here.html#drag-something-first)" in page and ".ipynb" not in page


def test_building_twice_gives_equal_bytes_and_takes_old_pictures_away(tmp_path, capsys, monkeypatch):
    shutil.copy(PATHS[0], tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "00-that-was.png").write_bytes(b"old")
    (out / "mine.png").write_bytes(b"not ours")
    seen = []
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["gallery", str(tmp_path), "--out", str(out)])
        main()
        seen.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert seen[0] == seen[1]
    assert "00-that-was.png" not in seen[0] and "mine.png" in seen[0]
    assert "4 pictures" in capsys.readouterr().out


def test_a_panel_s_words_are_those_of_its_picture_and_an_explorer_s_of_its_own():
    """The output of a panel was made before it trained, and says so; its picture was taken in the end."""
    loaded = notebook(3)
    widgets = stored_widgets(loaded)
    said = {
        c.id: sentence(o.data, widgets)
        for c in loaded.cells
        for o in c.get("outputs", [])
        if VIEW in o.get("data", {})
    }
    assert re.match(r"PPOTrainer after 120 steps: episode return \d", said["live-panel"])
    assert said["first-touch"].startswith("At a ratio of 1.10")


def test_frames_come_back_as_they_were_packed():
    table = np.random.default_rng(0).integers(-32768, 32767, (7, 30)).astype(np.int16)
    texts = [f"frame {i}: γ\u00a0= {i / 7:.2f}" for i in range(7)]
    back, words = unpack(pack(table.copy(), texts), 7, 30)
    np.testing.assert_array_equal(back, table)
    assert words == texts


def test_the_points_of_a_stored_explorer_are_its_curves():
    """Five lives: the return sinks within each and jumps where the next begins."""
    loaded = notebook(1)
    cell = next(c for c in loaded.cells if c.id == "returns-explorer")
    state = stored_widgets(loaded)[cell.outputs[0].data[VIEW]["model_id"]]
    curves = points(state, cell.outputs[0].data["text/plain"])
    assert set(curves) == {curve["name"] for curve in state["_figure"]["curves"]}
    returns = curves["returns"]
    assert (np.diff(returns[:, 0]) > 0).all()
    falls = np.flatnonzero(np.diff(returns[:, 1]) < -20)  # in SVG up is less: the return jumps where a life begins
    assert len(falls) == 4
    assert points(state, "Another sentence.") is None


def strokes(image: np.ndarray) -> dict:
    """A stored explorer that draws one picture, as `halftone` has it, at 10 points a pixel."""
    heights = np.asarray(halftone(image[None]))
    rows = np.where(np.isfinite(heights), np.round(20 * (80 - 10 * heights)), -32768).astype(np.int16)
    control = {"name": "k", "stops": [0.0], "value": 0.0}
    x = (20 + 10 * halftone_columns(1)).tolist()
    return {
        "k": 0.0,
        "_figure": {
            "controls": [control],
            "curves": [{"name": "picture", "count": 192, "x": x}],
            "svg": '<svg viewBox="0 0 120 100">',
        },
        "_strips": {"k": {"held": {}, "data": pack(rows[None], ["A picture."])}},
        "_grid": {"stops": {"k": [0]}, "data": pack(rows[None], ["A picture."])},
    }


def test_strokes_become_the_greys_that_they_stand_for():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    image[0, 0], image[7, 7] = 1, 0.25  # so that no way of turning it over looks the same
    blank = io.BytesIO()
    Image.new("RGB", (480, 400), "white").save(blank, "PNG")
    drawn = Image.open(io.BytesIO(compact(blank.getvalue(), strokes(image), "A picture."))).convert("L")
    pitch, start = 40, 12 + 20  # four pixels of the image a point; the margin; the middle of the first pixel
    middles = start + pitch * np.arange(8)
    seen = 1 - np.asarray(drawn, float)[np.ix_(middles, middles)] / 255
    np.testing.assert_allclose(seen, image, atol=0.02)


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without any, needs a folder of executed notebooks"):
        build(tmp_path, tmp_path / "out")
    blank = io.BytesIO()
    Image.new("RGB", (600, 300), "white").save(blank, "PNG")
    with pytest.raises(ValueError, match="blank picture of 600 × 300"):
        compact(blank.getvalue())
    mute = notebook(0)
    next(o for c in mute.cells for o in c.get("outputs", []) if VIEW in o.get("data", {})).data["text/plain"] = ""
    nbformat.write(mute, tmp_path / "00_mute.ipynb")
    with pytest.raises(ValueError, match=r"00_mute\.ipynb, first-explorer: got a picture without a sentence"):
        build(tmp_path, tmp_path / "out")


def test_a_small_grid_of_samples_is_enlarged_pixel_for_pixel():
    small = np.zeros((20, 60), np.uint8)
    small[:, ::2] = 200
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "PNG")
    image = Image.open(io.BytesIO(compact(buffer.getvalue())))
    assert image.size == (60 * 8 + 24, 20 * 8 + 24)
    assert len(np.unique(np.asarray(image.convert("L")))) == 3
    assert base64.b64encode(compact(buffer.getvalue())) == base64.b64encode(compact(buffer.getvalue()))
