"""Explorers in real JupyterLab in real Chromium: what is on the page is what the library computes."""

import re

import pytest
from browser import (
    Overlooked,
    assert_shows,
    drag,
    drawn,
    explorers,
    jupyterlab,
    knobs,
    open_notebook,
    run,
    run_all,
    slider,
    wait_until_idle,
    write_notebook,
)
from playwright.sync_api import expect

from artifex_rl.lab import AdvantageExplorer, ClipExplorer

pytestmark = pytest.mark.browser

CELLS = [
    "import ipywidgets\n"
    "from artifex_rl.lab import AdvantageExplorer, ReturnsExplorer\n"
    "explorer = AdvantageExplorer()\n"
    "explorer",
    "explorer",
    "explorer.set(gamma=0.25, gae_lambda=0.75)",
    "slider = ipywidgets.FloatSlider(value=0.5, min=0, max=1, step=0.01)\n"
    "linked = ReturnsExplorer()\n"
    "ipywidgets.jslink((slider, 'value'), (linked, 'gamma'))\n"
    "ipywidgets.HBox([slider, linked])",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    with jupyterlab(folder) as address:
        write_notebook(folder / "course" / "several.ipynb", *CELLS)
        write_notebook(
            folder / "course" / "broken.ipynb",
            "from artifex_rl.lab import AdvantageExplorer\n"
            "class Broken(AdvantageExplorer):\n"
            "    fail = False\n"
            "explorer = Broken()\n"
            "explorer",
            "whole = explorer._describe\n"
            "def describe(knobs, curves):\n"
            "    if knobs['gamma'] < 0.9: raise ZeroDivisionError('gamma is too small')\n"
            "    return whole(knobs, curves)\n"
            "explorer._describe = describe",
        )
        yield address


def test_a_stored_notebook_is_alive_before_anything_runs(lab, page):
    open_notebook(page, lab, "00_start_here.ipynb")
    explorer, expected = explorers(page).nth(0), AdvantageExplorer()
    expect(explorer).to_be_visible(timeout=60_000)
    assert_shows(explorer, expected, gamma=0.99, gae_lambda=0.95)
    assert page.get_by_text("Jupyter news").count() == 0  # no pop-up over the sliders
    gamma = slider(explorer, 0)
    gamma.focus()
    for presses in range(1, 6):  # the stored strip has every stop of the slider in hand
        page.keyboard.press("ArrowLeft")
        assert_shows(explorer, expected, gamma=round(0.99 - presses / 100, 2))
    drag(page, gamma, 0.9, 0.4)
    assert 0.35 < knobs(explorer)["gamma"] < 0.45
    assert_shows(explorer, expected, **knobs(explorer))
    drag(page, slider(explorer, 1), 0.9, 0.3)  # no strip holds here: the grid over both sliders serves
    assert 0.2 < knobs(explorer)["gae_lambda"] < 0.4
    assert_shows(explorer, expected, **knobs(explorer))
    explorer.get_by_role("button", name="Reset").click()
    assert_shows(explorer, expected, gamma=0.99, gae_lambda=0.95)


def test_the_keyboard_moves_the_slider_and_not_the_notebook(lab, page):
    open_notebook(page, lab, "00_start_here.ipynb")
    explorer, expected = explorers(page).nth(0), AdvantageExplorer()
    expect(explorer).to_be_visible(timeout=60_000)
    slider(explorer, 1).focus()
    selected = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex")
    for key, value in [("Home", 0.0), ("ArrowRight", 0.01), ("ArrowUp", 0.02), ("ArrowDown", 0.01), ("End", 1.0)]:
        page.keyboard.press(key)
        assert_shows(explorer, expected, gae_lambda=value)
        assert slider(explorer, 1).get_attribute("aria-valuetext") == f"{value:.2f}"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")
    assert_shows(explorer, expected, gamma=0.0)
    assert explorer.is_visible()
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex") == selected


def test_live_the_page_follows_the_hand_and_the_kernel_follows_the_page(lab, page):
    open_notebook(page, lab, "several.ipynb")
    run(page, "notebook:restart-run-all")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    wait_until_idle(page)
    expect(explorers(page)).to_have_count(3)
    first, second, expected = explorers(page).nth(0), explorers(page).nth(1), AdvantageExplorer()
    # The third cell moved both sliders from code; both displays of the explorer follow.
    assert_shows(first, expected, gamma=0.25, gae_lambda=0.75)
    assert_shows(second, expected, gamma=0.25, gae_lambda=0.75)
    # One slider after the other: once one is released, the strips of the other are stale and are fetched anew.
    for index, name in [(0, "gamma"), (1, "gae_lambda"), (0, "gamma")]:
        handle = slider(first, index)
        drag(page, handle, 0.3, 0.8)
        assert 0.75 < knobs(first)[name] < 0.85
        assert_shows(first, expected, **knobs(first))
        handle.focus()
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        assert_shows(first, expected, **knobs(first))
        assert_shows(second, expected, **knobs(first))
    # The kernel knows where the hand left the sliders.
    page.evaluate(
        """(source) => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          notebook.activeCellIndex = 1;
          notebook.activeCell.model.sharedModel.setSource(source);
        }""",
        "print(explorer.fingerprint())",
    )
    run(page, "notebook:run-cell")
    expected.set(**knobs(first))
    expect(page.locator(".jp-OutputArea-output pre").first).to_contain_text(expected.fingerprint().splitlines()[1])


def test_a_question_that_the_kernel_overlooks_is_answered_all_the_same(lab, page):
    overlooked = Overlooked(page, '"_request"')
    open_notebook(page, lab, "several.ipynb")
    run(page, "notebook:restart-run-all")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    wait_until_idle(page)
    explorer, expected = explorers(page).nth(0), AdvantageExplorer()
    assert_shows(explorer, expected, gamma=0.25, gae_lambda=0.75)
    overlooked.armed = True
    drag(page, slider(explorer, 0), 0.3, 0.8)
    for _ in range(100):
        page.wait_for_timeout(50)
        if overlooked.count and not overlooked.held:
            break
    assert overlooked.count == 1 and not overlooked.held
    drag(page, slider(explorer, 1), 0.7, 0.2)  # its strip was the answer
    assert 0.15 < knobs(explorer)["gae_lambda"] < 0.25
    assert_shows(explorer, expected, **knobs(explorer))


def test_a_linked_slider_moves_the_explorer_in_the_page(lab, page):
    open_notebook(page, lab, "several.ipynb")
    run_all(page)
    expect(explorers(page)).to_have_count(3)
    handle, linked = page.locator(".noUi-handle"), explorers(page).nth(2)
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(linked.locator("output")).to_have_text("0.51")
    assert knobs(linked) == {"gamma": 0.51}


def test_an_error_in_the_kernel_is_shown_in_the_widget(lab, page):
    open_notebook(page, lab, "broken.ipynb")
    run_all(page)
    explorer = explorers(page).first
    drag(page, slider(explorer, 0), 0.99, 0.5)
    slider(explorer, 1).focus()  # asks for the strips that hold here
    expect(explorer.get_by_role("alert")).to_have_text("ZeroDivisionError: gamma is too small", timeout=20_000)
    drag(page, slider(explorer, 0), 0.5, 0.97)
    slider(explorer, 1).focus()
    expect(explorer.locator(".alarm")).to_be_hidden(timeout=20_000)


def test_a_dark_theme_is_dark_throughout(lab, page):
    open_notebook(page, lab, "00_start_here.ipynb")
    explorer = explorers(page).nth(0)
    expect(explorer).to_be_visible(timeout=60_000)

    def brightness(locator, what):
        colour = locator.evaluate(f"(node) => getComputedStyle(node).{what}")
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765

    title, axis = explorer.locator("svg text").first, explorer.locator('svg [id$="-patch_3"] path').first
    assert brightness(title, "fill") < 0.3 and brightness(axis, "stroke") < 0.3
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    page.wait_for_timeout(200)
    assert brightness(title, "fill") > 0.7 and brightness(axis, "stroke") > 0.7
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })")


def test_the_pointer_reads_values_off_the_curves(lab, page):
    open_notebook(page, lab, "00_start_here.ipynb")
    explorer, expected = explorers(page).nth(0), AdvantageExplorer()
    expect(explorer).to_be_visible(timeout=60_000)
    curve = next(curve for curve in expected._figure["curves"] if curve["name"] == "advantages")
    step = 50
    spot = explorer.locator("svg").evaluate(
        "(svg, [x, y]) => { const p = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM()); return [p.x, p.y]; }",
        [curve["x"][step], sum(curve["data"]["box"][1::2]) / 2],
    )
    page.mouse.move(*spot)
    said = explorer.locator(".readout").inner_text()
    assert said.startswith(f"time step {step} ")
    value = float(re.search(r"· advantage (-?[\d.]+)", said.replace("\u00a0", " "))[1])
    assert value == pytest.approx(float(expected.curves()["advantages"][step]), abs=0.1)


def test_the_clip_explorer_moves_its_marker(lab, page):
    open_notebook(page, lab, "00_start_here.ipynb")
    explorer, expected = explorers(page).nth(1), ClipExplorer()
    explorer.scroll_into_view_if_needed(timeout=60_000)
    expect(explorer).to_be_visible(timeout=60_000)
    slider(explorer, 2).focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert_shows(explorer, expected, ratio=1.2)
    marks = explorer.locator('svg [id$="-here_better"] use')
    curve = next(curve for curve in expected._figure["curves"] if curve["name"] == "objective_better")
    slope, offset = curve["data"]["y"]
    heights = [float(marks.nth(i).get_attribute("y")) * slope + offset for i in range(2)]
    assert heights == pytest.approx(expected.curves()["here_better"][:, 1].tolist(), abs=0.03 * abs(slope))
    assert drawn(explorer, expected, "objective_better")[0].max() == pytest.approx(1.2, abs=0.03 * abs(slope))


@pytest.mark.slow
def test_a_whole_lesson_runs_and_its_explorers_live(lab, page):
    open_notebook(page, lab, "01_returns_and_advantages.ipynb")
    run_all(page)
    assert not page.evaluate(
        """() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells)
          .flatMap((cell) => cell.type === "code" ? cell.sharedModel.getOutputs() : [])
          .filter((output) => output.output_type === "error").map((output) => output.evalue)"""
    )
    first, expected = explorers(page).first, AdvantageExplorer()
    first.scroll_into_view_if_needed(timeout=60_000)
    for index, name in [(0, "gamma"), (1, "gae_lambda")]:
        drag(page, slider(first, index), 0.9, 0.4)
        assert 0.35 < knobs(first)[name] < 0.45
        assert_shows(first, expected, **knobs(first))
