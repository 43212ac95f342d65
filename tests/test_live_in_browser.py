"""A live training in real JupyterLab in real Chromium: it is steered while it trains, and other cells run."""

import json
import time

import pytest
from browser import (
    Overlooked,
    drag,
    jupyterlab,
    open_notebook,
    run,
    run_all,
    said_by_the_kernel,
    slider,
    wait_until_idle,
    write_notebook,
)
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETUP = """\
import sys
sys.path.insert(0, TESTS)
from live import PAIRS, make_dpo
from artifex_rl.lab import LiveTraining
panel = LiveTraining(
    make_dpo(), PAIRS, batch_size=10, sliders=["beta", "learning_rate"], title="First", max_steps=10**8
)
panel"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("live")
    setup = SETUP.replace("TESTS", repr(str(request.path.parent)))
    with jupyterlab(folder) as address:
        write_notebook(folder / "course" / "live.ipynb", setup, "panel.runs[0].marks[-1].value, panel.running")
        write_notebook(
            folder / "course" / "two.ipynb",
            setup.replace("panel = ", "other = ").replace("First", "Other").rsplit("\n", 1)[0]
            + "\npanel = LiveTraining(make_dpo(), PAIRS, title='First')\n"
            + "import ipywidgets\nipywidgets.HBox([panel, other])",
        )
        yield address


def panels(page):
    return page.locator(".artifex.live")


def button(panel, name):
    return panel.get_by_role("button", name=name, exact=True)


def step(panel):
    return int(panel.locator(".figure svg").get_attribute("data-step"))


def path(panel, line="line-0-0-0-smooth"):
    return panel.locator(f'.figure svg [id$="-{line}"] path').get_attribute("d")


def marks(panel):
    return panel.locator(".figure svg .marks").first.locator("line").count()


def reading(panel):
    return panel.locator("output").first.inner_text()


def latest_mark(panel):
    """What stands at the last line. (Lines are not to be counted: as the axis grows, those before become one.)"""
    return panel.locator(".figure svg .marks").first.text_content()


def wait_for(page, condition, seconds=120):
    for _ in range(20 * seconds):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("nothing happened in the page")


def opened(page, lab, name):
    open_notebook(page, lab, name)
    run_all(page)
    wait_until_idle(page)
    expect(button(panels(page).first, "Start")).to_be_enabled(timeout=60_000)
    return panels(page).first


def output(page, index):
    cell = page.locator(".jp-CodeCell").nth(index)
    return cell.locator(".jp-OutputArea-executeResult .jp-RenderedText").inner_text()


def select(page, index):
    page.evaluate("(i) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", index)


def test_it_is_steered_while_it_trains_and_another_cell_runs(lab, page):
    panel = opened(page, lab, "live.ipynb")
    assert path(panel) in ("", None) and step(panel) == 0
    button(panel, "Start").click()
    wait_for(page, lambda: step(panel) > 20)
    before, shown = step(panel), path(panel)
    assert len(shown) > 50
    drag(page, slider(panel, 0), 0.5, 0.8)
    wait_for(page, lambda: marks(panel) > 0)
    wait_for(page, lambda: step(panel) > before + 20 and path(panel) != shown)
    assert button(panel, "Pause").count() == 1  # it never stopped

    # The mark stands where the slider moved: behind the steps before the drag, within those after it.
    line = panel.locator(".figure svg .marks").first.locator("line").first
    xs = [float(point.split()[0]) for point in path(panel).replace("M", "L").split("L")[1:]]
    assert xs[0] < float(line.get_attribute("x1")) < xs[-1] + 1
    assert "β 0." in latest_mark(panel)

    moved = reading(panel)
    wait_for(page, lambda: latest_mark(panel).endswith(f"β {moved}"))
    select(page, 1)
    run(page, "notebook:run-cell")
    wait_for(page, lambda: "True" in output(page, 1))
    assert json.loads(output(page, 1).strip("()").split(",")[0]) == pytest.approx(float(moved), rel=1e-2)

    button(panel, "Pause").click()
    expect(button(panel, "Start")).to_be_visible(timeout=2000)
    stood, picture = step(panel), path(panel)
    page.wait_for_timeout(700)
    assert step(panel) == stood and path(panel) == picture
    assert f"after {stood:,} steps" in panel.locator(".summary").inner_text()
    assert panel.locator(".figure svg").get_attribute("aria-label") == panel.locator(".summary").inner_text()

    button(panel, "Step").click()
    wait_for(page, lambda: step(panel) == stood + 1)
    button(panel, "What if?").click()
    wait_for(page, lambda: panel.locator(".legend span").count() == 2)
    slider(panel, 0).focus()
    page.keyboard.press("Home")  # and JupyterLab leaves the keys to the slider
    button(panel, "Start").click()
    wait_for(page, lambda: step(panel) > stood + 30)
    button(panel, "Pause").click()
    expect(button(panel, "Start")).to_be_visible(timeout=2000)
    assert path(panel, "line-0-0-1-smooth") not in ("", None, path(panel))
    assert "what if: β 0.005" in panel.locator(".legend").inner_text()

    button(panel, "Reset").click()
    wait_for(page, lambda: step(panel) == 0 and path(panel) == "" and marks(panel) == 0)
    assert reading(panel) == "0.1"


@pytest.mark.parametrize("what", ['"drawn"', '"update"'])
def test_a_message_that_the_kernel_overlooks_stops_neither_frames_nor_sliders(lab, page, what):
    overlooked = Overlooked(page, what)
    panel = opened(page, lab, "live.ipynb")
    button(panel, "Start").click()
    wait_for(page, lambda: step(panel) > 20)
    overlooked.armed = True
    if what == '"update"':
        slider(panel, 0).focus()
        page.keyboard.press("ArrowRight")
    wait_for(page, lambda: overlooked.count == 1)
    for _ in range(3):  # a move each second: every one of them is heard
        began = time.monotonic()
        slider(panel, 0).focus()
        page.keyboard.press("ArrowRight")
        wait_for(page, lambda: latest_mark(panel).endswith(f"β {reading(panel)}"), seconds=20)
        assert time.monotonic() - began < 5  # it would be for good
        page.wait_for_timeout(1000)
    frames = page.evaluate(
        """() => new Promise((resolve) => {
          let frames = 0;
          new MutationObserver(() => { frames += 1; }).observe(
            document.querySelector(".artifex.live svg"), { attributes: true, attributeFilter: ["data-step"] });
          setTimeout(() => resolve(frames), 3000);
        })"""
    )
    assert frames > 12  # a page whose answers are lost gets two a second


def test_a_move_at_rest_that_the_kernel_overlooks_is_followed_by_another_message(lab, page):
    overlooked = Overlooked(page, '"update"')
    panel = opened(page, lab, "live.ipynb")
    overlooked.armed = True
    slider(panel, 0).focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, lambda: overlooked.count == 1)
    wait_for(page, lambda: not overlooked.held, seconds=5)


def test_a_cell_that_is_run_again_stops_its_run(lab, page):
    panel = opened(page, lab, "live.ipynb")
    button(panel, "Start").click()
    wait_for(page, lambda: step(panel) > 5)
    select(page, 0)
    run(page, "notebook:run-cell")
    wait_for(page, lambda: panels(page).count() == 1 and step(panels(page)) == 0)
    threads = "import threading\nprint([t.name for t in threading.enumerate() if t.name.startswith('live')])"
    assert said_by_the_kernel(page, threads) == "[]"


def test_two_panels_side_by_side_train_at_once(lab, page):
    opened(page, lab, "two.ipynb")
    first, other = panels(page).nth(0), panels(page).nth(1)
    button(first, "Start").click()
    button(other, "Start").click()
    wait_for(page, lambda: step(first) > 20 and step(other) > 20)
    button(first, "Pause").click()
    expect(button(first, "Start")).to_be_visible(timeout=2000)
    stood, went = step(first), step(other)
    wait_for(page, lambda: step(other) > went)
    assert step(first) == stood
    button(other, "Pause").click()
    ids = page.evaluate("() => Array.from(document.querySelectorAll('.artifex [id]'), (node) => node.id)")
    assert len(ids) == len(set(ids))
    boxes = [panel.bounding_box() for panel in (first, other)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1


def test_a_stored_panel_shows_its_last_picture_and_says_what_is_missing(lab, page, tmp_path, request):
    """The page of a panel that was trained, opened from a file."""
    from live import PAIRS, make_dpo

    from artifex_rl.lab import LiveTraining
    from artifex_rl.lab.page import page as whole_page

    panel = LiveTraining(make_dpo(), PAIRS)
    panel.run(20)
    file = tmp_path / "panel.html"
    file.write_text(whole_page(panel.html(), "A panel"), encoding="utf-8")
    page.goto(file.as_uri())
    shown = panels(page)
    expect(shown).to_be_visible()
    assert step(shown) == 20 and len(path(shown)) > 50
    assert "Needs a running kernel" in shown.inner_text() and panel.summary() in shown.inner_text()
    for control in shown.locator("button, input").all():
        assert control.is_disabled()
