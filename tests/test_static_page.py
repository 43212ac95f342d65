"""Static pages in Chromium with the network cut: sliders that need no kernel, and draw what the library computes."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import assert_shows, drag, drawn, explorers, knobs, open_from_disk, slider, write_notebook

from artifex_rl.lab import AdvantageExplorer, ClipExplorer, ReturnsExplorer
from artifex_rl.lab.page import page as whole_page

pytestmark = pytest.mark.browser

READY_MADE = [ReturnsExplorer, AdvantageExplorer, ClipExplorer]
every_explorer = pytest.mark.parametrize("kind", READY_MADE, ids=lambda kind: kind.__name__)
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The page of each ready-made explorer, as a reader gets it: a file."""
    folder = tmp_path_factory.mktemp("pages")
    return {kind: kind().save_html(folder / f"{kind.__name__}.html") for kind in READY_MADE}


@contextmanager
def opened(browser, file: Path, may_ask: bool = False, **options):
    """A page opened from the disk, its explorer drawn. nbconvert's own template asks for MathJax and the like."""
    options = {"viewport": {"width": 900, "height": 700}} | options
    with open_from_disk(browser, file, may_ask=may_ask, **options) as page:
        page.wait_for_function("() => document.querySelector('.artifex svg')?.dataset.knobs")
        yield page


@every_explorer
def test_keyboard_and_mouse_reach_every_stop_of_the_slider_in_hand(browser, saved, kind):
    expected = kind()
    for index, control in enumerate(expected.controls):
        with opened(browser, saved[kind]) as page:
            explorer, handle = explorers(page), slider(explorers(page), index)
            assert_shows(explorer, expected, **{c.name: c.value for c in expected.controls})
            start = control.index(control.value)
            handle.focus()
            for presses in (1, 2, 3):
                page.keyboard.press("ArrowLeft")
                assert_shows(explorer, expected, **{control.name: control.stops[start - presses]})
            for key, value in (("Home", control.low), ("End", control.high)):
                page.keyboard.press(key)
                assert_shows(explorer, expected, **{control.name: value})
            drag(page, handle, 0.95, 0.3)
            share = (knobs(explorer)[control.name] - control.low) / (control.high - control.low)
            assert 0.25 < share < 0.35
            assert_shows(explorer, expected, **knobs(explorer))


@every_explorer
def test_sliders_moved_one_after_another_show_what_is_drawn(browser, saved, kind):
    """No strip holds once two sliders have moved: a grid serves, its steps coarser than the sliders' own."""
    expected = kind()
    with opened(browser, saved[kind]) as page:
        explorer = explorers(page)
        for start, end in [(0.9, 0.4), (0.37, 0.71)]:
            for index, control in enumerate(expected.controls):
                handle = slider(explorer, index)
                drag(page, handle, start, end)
                shown = knobs(explorer)
                share = (shown[control.name] - control.low) / (control.high - control.low)
                assert abs(share - end) < 0.06, control.name
                assert_shows(explorer, expected, **shown)
                # The slider itself snapped to what is drawn, for eyes and for screen readers.
                for k, other in enumerate(expected.controls):
                    assert other.stops[int(slider(explorer, k).input_value())] == shown[other.name]
                    said = slider(explorer, k).get_attribute("aria-valuetext")
                    assert said == other.format(shown[other.name]) == explorer.locator("output").nth(k).inner_text()


@every_explorer
def test_arrow_keys_still_move_a_slider_on_the_grid(browser, saved, kind):
    """One press goes at least one stop in its direction, though the next frame may be several stops away."""
    expected = kind()
    with opened(browser, saved[kind]) as page:
        explorer = explorers(page)
        for index in range(len(expected.controls)):
            drag(page, slider(explorer, index), 0.9, 0.5)
        for index, control in enumerate(expected.controls):
            slider(explorer, index).focus()
            for key, sign in (("ArrowLeft", -1), ("ArrowRight", 1)):
                for _ in range(4):
                    before = knobs(explorer)[control.name]
                    page.keyboard.press(key)
                    assert sign * (knobs(explorer)[control.name] - before) > 0, (control.name, key)
                    assert_shows(explorer, expected, **knobs(explorer))
            for key, end in (("Home", control.low), ("End", control.high)):
                page.keyboard.press(key)
                assert_shows(explorer, expected, **{control.name: end})


@every_explorer
def test_a_drawing_is_called_something_before_its_first_frame(browser, saved, kind):
    """Inflating the frames takes time on a busy machine; who cannot see the picture is told what it is meanwhile."""
    stalled = "class { readable = new ReadableStream(); writable = new WritableStream() }"
    script = f"<script>window.DecompressionStream = {stalled}</script>"
    page_of = saved[kind].read_text("utf-8").replace("<head>", f"<head>{script}", 1)
    (waiting := saved[kind].with_name(f"waiting-{kind.__name__}.html")).write_text(page_of, "utf-8")
    with open_from_disk(browser, waiting) as page:
        drawing = page.locator(".artifex svg")
        drawing.wait_for()
        assert drawing.get_attribute("data-knobs") is None
        assert len(drawing.get_attribute("aria-label")) > 5


def test_reset_brings_back_the_first_picture(browser, saved):
    expected = AdvantageExplorer()
    with opened(browser, saved[AdvantageExplorer]) as page:
        explorer = explorers(page)
        for index in (0, 1):
            drag(page, slider(explorer, index), 0.9, 0.2)
        explorer.get_by_role("button", name="Reset").click()
        assert_shows(explorer, expected, gamma=0.99, gae_lambda=0.95)


def test_a_page_opens_where_code_left_the_sliders(browser, tmp_path):
    expected = AdvantageExplorer()
    expected.set(gamma=0.63, gae_lambda=0.37)
    with opened(browser, expected.save_html(tmp_path / "page.html", title="γ & <λ>")) as page:
        assert page.title() == "γ & <λ>"
        explorer = explorers(page)
        assert_shows(explorer, expected)
        slider(explorer, 1).focus()
        page.keyboard.press("ArrowLeft")
        assert_shows(explorer, expected, gamma=0.63, gae_lambda=0.36)


@every_explorer
def test_a_phone_shows_all_of_it_and_nothing_sideways(browser, saved, kind):
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with opened(browser, saved[kind], **phone) as page:
        assert page.evaluate("() => [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        expected, handles = kind(), explorers(page).locator("input[type=range]")
        for i in range(len(expected.controls)):
            box = handles.nth(i).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
            assert box["width"] > 120 and box["height"] >= 24  # room for a thumb
        box = handles.first.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
        control = expected.controls[0]
        assert abs((knobs(explorers(page))[control.name] - control.low) / (control.high - control.low) - 0.4) < 0.06
        assert_shows(explorers(page), expected, **knobs(explorers(page)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_axes_stand_out_in_either_colour_scheme(browser, saved, scheme):
    with opened(browser, saved[AdvantageExplorer], color_scheme=scheme) as page:
        explorer = explorers(page)

        def brightness(locator, what):
            colour = locator.evaluate(f"(node) => getComputedStyle(node).{what}")
            return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765

        inks = [
            brightness(explorer.locator("svg text").first, "fill"),
            brightness(explorer.locator('svg [id$="-patch_3"] path').first, "stroke"),
            brightness(explorer.locator(".summary"), "color"),
            brightness(explorer.locator(".control span").first, "color"),
        ]
        if scheme == "dark":
            assert min(inks) > 0.7
        else:
            assert max(inks) < 0.3


def test_explorers_in_one_page_do_not_disturb_each_other(browser, tmp_path):
    """Two different ones, and one of them a second time."""
    first, second = AdvantageExplorer(), ReturnsExplorer()
    file = tmp_path / "several.html"
    file.write_text(whole_page(first.html() + second.html() + first.html(), "Several"), encoding="utf-8")
    with opened(browser, file) as page:
        shown = explorers(page)
        assert shown.count() == 3
        ids = page.evaluate("() => Array.from(document.querySelectorAll('[id]'), (node) => node.id)")
        assert len(ids) == len(set(ids))
        page.wait_for_function("() => document.querySelectorAll('svg[data-knobs]').length === 3")
        drag(page, slider(shown.nth(0), 0), 0.9, 0.3)
        drag(page, slider(shown.nth(2), 1), 0.9, 0.6)
        left, right = knobs(shown.nth(0)), knobs(shown.nth(2))
        assert left["gamma"] < 0.35 and left["gae_lambda"] == 0.95
        assert right["gamma"] == 0.99 and right["gae_lambda"] < 0.65
        assert_shows(shown.nth(0), AdvantageExplorer(), **left)
        assert_shows(shown.nth(1), ReturnsExplorer(), gamma=0.99)
        assert_shows(shown.nth(2), AdvantageExplorer(), **right)


def convert(notebook: Path, folder: Path) -> Path:
    """One setting, and a whole notebook becomes a page with working sliders."""
    settings = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", f"--output-dir={folder}"]
    subprocess.run(
        [*command, str(notebook)],
        env=os.environ | settings | {"ARTIFEX_RL_EMBED": "html"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    return folder / f"{notebook.stem}.html"


def test_a_converted_notebook_keeps_its_sliders(browser, tmp_path):
    notebook = tmp_path / "lesson.ipynb"
    write_notebook(
        notebook,
        "from artifex_rl.lab import AdvantageExplorer, ClipExplorer\nexplorer = AdvantageExplorer()\nexplorer",
        "ClipExplorer()",
        "explorer.set(gamma=0.8)\nexplorer",
    )
    with opened(browser, convert(notebook, tmp_path), may_ask=True) as page:
        shown = explorers(page)
        assert shown.count() == 3
        drag(page, slider(shown.nth(0), 0), 0.9, 0.3)
        assert 0.25 < knobs(shown.nth(0))["gamma"] < 0.35
        assert_shows(shown.nth(0), AdvantageExplorer(), **knobs(shown.nth(0)))
        slider(shown.nth(1), 0).focus()
        page.keyboard.press("ArrowRight")
        assert_shows(shown.nth(1), ClipExplorer(), clip_param=knobs(shown.nth(1))["clip_param"])
        assert_shows(shown.nth(2), AdvantageExplorer(), gamma=0.8)


@pytest.mark.slow
def test_the_first_notebook_converted_is_alive(browser, tmp_path):
    with opened(browser, convert(NOTEBOOKS / "00_start_here.ipynb", tmp_path), may_ask=True) as page:
        advantages, clip = explorers(page).nth(0), explorers(page).nth(1)
        drag(page, slider(advantages, 0), 0.9, 0.3)
        assert_shows(advantages, AdvantageExplorer(), **knobs(advantages))
        before = drawn(clip, ClipExplorer(), "objective_worse")[0]
        drag(page, slider(clip, 0), 0.2, 0.8)
        assert (drawn(clip, ClipExplorer(), "objective_worse")[0] != before).any()
        assert_shows(clip, ClipExplorer(), **knobs(clip))
