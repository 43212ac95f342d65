"""A deck from the disk, the network cut: slides turn, sliders draw, and each has its own keys."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import drag, explorers, knobs, open_from_disk, slider

from artifex_rl.lab.slides import build

pytestmark = pytest.mark.browser
NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "01_returns_and_advantages.ipynb"


@pytest.fixture(scope="module")
def deck(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    (folder / "notebooks").mkdir()
    shutil.copy(NOTEBOOK, folder / "notebooks")
    return build(folder / "notebooks", folder / "out")[0]


@contextmanager
def opened(browser, deck: Path, **options):
    """The deck, formulas set. It asks for nothing beyond its own folder."""
    options = {"viewport": {"width": 1280, "height": 720}} | options
    with open_from_disk(browser, deck, within=deck.parent, **options) as page:
        page.wait_for_function(
            "() => document.body.dataset.typeset && document.querySelector('.artifex svg')?.dataset.knobs"
        )
        yield page


def place(page) -> int:
    return page.evaluate("() => Reveal.getSlidePastCount()")


def present(page):
    return page.locator(".slides section.present section.present")


def turn_to_explorer(page):
    for _ in range(10):
        if explorers(present(page)).count():
            return explorers(present(page))
        before = place(page)
        page.keyboard.press("ArrowRight")
        assert place(page) == before + 1
    pytest.fail("no explorer on the first slides")


def test_slides_turn_and_an_explorer_is_dragged(browser, deck):
    with opened(browser, deck) as page:
        explorer = turn_to_explorer(page)
        path = explorer.locator('svg [id$="-advantage"] path, svg [id$="-advantages"] path').first
        before, setting = path.get_attribute("d"), knobs(explorer)
        drag(page, slider(explorer, 0), 0.95, 0.3)
        page.wait_for_function(
            "(d) => !Array.from(document.querySelectorAll('path')).some((p) => p.getAttribute('d') === d)", arg=before
        )
        assert knobs(explorer)["gamma"] < setting["gamma"] and path.get_attribute("d") != before


def test_arrows_in_a_slider_move_the_slider_and_page_down_turns_the_slide(browser, deck):
    with opened(browser, deck) as page:
        explorer = turn_to_explorer(page)
        here, setting = place(page), knobs(explorer)["gamma"]
        slider(explorer, 0).focus()
        for key in ("ArrowLeft", "ArrowLeft", "ArrowRight"):
            page.keyboard.press(key)
        page.wait_for_function(
            "(g) => JSON.parse(document.querySelector('.present .present .artifex svg').dataset.knobs).gamma < g",
            arg=setting,
        )
        assert place(page) == here
        page.keyboard.press("PageDown")  # what a presenter's remote sends
        assert place(page) == here + 1
        page.keyboard.press("PageUp")
        slider(explorer, 0).focus()
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        assert place(page) == here + 1


@pytest.mark.parametrize("shape", [(1280, 720), (1024, 768)])
def test_everything_fits_on_its_slide(browser, deck, shape):
    """At the proportions of projectors old and new: nothing is cut off, and sliders are on the screen."""
    with opened(browser, deck, viewport=dict(zip(("width", "height"), shape, strict=True))) as page:
        problems, seen = [], 0
        for number in range(page.evaluate("() => Reveal.getTotalSlides()")):
            found = page.evaluate(
                """() => {
                  const body = Reveal.getCurrentSlide().querySelector(".body"), box = body.getBoundingClientRect();
                  const outside = (part) => {
                    const r = part.getBoundingClientRect();
                    const wide = r.left < box.left - 2 || r.right > box.right + 2;
                    return wide || r.top < box.top - 2 || r.bottom > box.bottom + 2;
                  };
                  const kinds = "input, img, .artifex svg, .artifex .summary, mjx-container, p";
                  const parts = Array.from(body.querySelectorAll(kinds))
                    .filter((part) => part.getClientRects().length && !part.closest("details"));
                  return { high: body.scrollHeight - body.clientHeight,
                    sliders: body.querySelectorAll("input").length,
                    out: parts.filter(outside).map((part) => part.outerHTML.slice(0, 120)) };
                }"""
            )
            seen += found["sliders"]
            if found["high"] > 2 or found["out"]:
                problems.append((number + 1, found))
            page.evaluate("() => Reveal.next()")
        assert not problems
        assert seen >= 5


def test_a_dark_room(browser, deck):
    with opened(browser, deck, color_scheme="dark") as page:
        paper, ink = page.evaluate(
            """() => [getComputedStyle(document.querySelector(".reveal-viewport")).backgroundColor,
              getComputedStyle(document.querySelector("h1")).color]
              .map((colour) => colour.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b))"""
        )
        assert paper < 150 and ink > 600
