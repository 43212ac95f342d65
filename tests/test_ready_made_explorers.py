"""What every explorer of an algorithm keeps: a light page, one sentence, and curves in the page that are its own."""

import json
import re

import numpy as np
import pytest
from browser import drag, knobs, open_chromium, slider

from artifex_rl.lab import (
    AlgorithmChooser,
    AlgorithmExplorer,
    BaselineExplorer,
    DashboardExplorer,
    DenoisingExplorer,
    DiscriminatorExplorer,
    EnergyTiltExplorer,
    FlowNoiseExplorer,
    GroupAdvantageExplorer,
    GuidanceExplorer,
    KLExplorer,
    LatentWalkExplorer,
    PreferenceExplorer,
    RewardExplorer,
    TextRewardExplorer,
    frames,
)

KINDS = [
    AlgorithmChooser,
    pytest.param(AlgorithmExplorer, marks=pytest.mark.slow),  # it trains all four algorithms
    BaselineExplorer,
    DashboardExplorer,
    DenoisingExplorer,
    DiscriminatorExplorer,
    EnergyTiltExplorer,
    FlowNoiseExplorer,
    GroupAdvantageExplorer,
    GuidanceExplorer,
    KLExplorer,
    LatentWalkExplorer,
    PreferenceExplorer,
    RewardExplorer,
    TextRewardExplorer,
]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def made():
    """Each of them, made when it is first looked at."""

    class Made(dict):
        def __missing__(self, kind):
            self[kind] = kind()
            return self[kind]

    return Made()


@pytest.mark.slow
@every
def test_strips_are_light_and_the_page_too(made, kind):
    explorer = made[kind]
    assert sum(len(strip["data"]) for strip in explorer._strips.values()) < 100_000
    assert len(explorer._figure["svg"]) < 120_000
    assert len(json.dumps(explorer._figure)) < 200_000


@pytest.mark.slow
@every
def test_a_second_one_is_the_same_and_compiles_nothing(kind):
    first = kind()  # made here: what an earlier test compiled may have been forgotten since, see conftest
    before = frames._evaluate._cache_size()
    again = kind()
    assert frames._evaluate._cache_size() == before > 0
    assert again.fingerprint() == first.fingerprint()
    assert again._strips == first._strips


@pytest.mark.slow
@every
def test_the_summary_is_one_sentence_at_every_end_of_every_slider(kind):
    explorer = kind()
    for control in explorer.controls:
        seen = set()
        for value in (control.low, control.high):
            explorer.set(**{control.name: value})
            assert re.fullmatch(r"[A-Z][^\n]*[^ ]\.", explorer.summary()) and "nan" not in explorer.summary()
            assert not re.search(r"[-−]0(\.0+)?(?!\.?\d)", explorer.summary()), "nothing is −0"
            seen.add(explorer.fingerprint())
            for name, points in explorer.curves().items():
                assert not np.isinf(points).any(), name
        assert len(seen) == 2, control.name
        explorer.set(**{control.name: control.value})


@pytest.mark.slow
@every
def test_a_value_outside_a_slider_is_refused_and_nothing_moves(made, kind):
    explorer = made[kind]
    before = explorer.fingerprint()
    for control in explorer.controls:
        for value in (control.high + control.step, control.low - control.step, float("nan"), "often", None):
            with pytest.raises(ValueError, match=f"^{control.name}: got"):
                explorer.set(**{control.name: value})
    assert explorer.fingerprint() == before


@pytest.mark.slow
@every
def test_markers_are_all_drawn_at_first(made, kind):
    """The page moves the marks that are there: one that starts outside the figure would never be seen."""
    svg, curves = made[kind]._figure["svg"], made[kind].curves()
    for name, points in curves.items():
        group = svg.split(f'<g id="{name}">')[1].split("<g id=")[0]
        if "<use" in group:
            assert group.count("<use") == len(points), name
        else:
            assert "<path" in group, name


@pytest.mark.browser
@every
def test_the_page_follows_the_hand(kind, chromium, tmp_path):
    """Drag the first slider: every curve in the page is what the explorer computes there."""
    expected, errors = kind(), []
    with open_chromium(chromium) as browser:
        page = browser.new_page(viewport={"width": 960, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(expected.save_html(tmp_path / "page.html").as_uri())
        page.wait_for_function("() => document.querySelector('.artifex svg')?.dataset.knobs")
        root, control = page.locator(".artifex"), expected.controls[0]
        start = (control.value - control.low) / (control.high - control.low)
        for end in (0.9, 0.2):
            drag(page, slider(root, 0), start, end)
            start = end
            shown = knobs(root)
            span = control.high - control.low
            assert abs((shown[control.name] - control.low) / span - end) < max(0.1, 0.51 * control.step / span)
            show_gaps(root, expected, shown)
        for index, other in enumerate(expected.controls[1:], start=1):
            slider(root, index).focus()
            page.keyboard.press("End")
            page.wait_for_function(
                "([name, value]) => JSON.parse(document.querySelector('.artifex svg').dataset.knobs)[name] === value",
                arg=[other.name, other.high],
            )
            show_gaps(root, expected, knobs(root))
    assert not errors


def show_gaps(root, explorer, setting):
    """As `assert_shows`, for curves with gaps and for points that move both ways."""
    explorer.set(**setting)
    wanted = explorer._canvas.points([explorer.curves()])[0] / frames.UNIT
    start = 0
    for curve in explorer._figure["curves"]:
        n, moves = curve["count"], not curve["x"]
        xs = wanted[start : start + n] if moves else np.array(curve["x"])
        ys = wanted[start + n * moves : start + n * moves + n]
        start += n * (1 + moves)
        group = root.locator(f'svg [id$="-{curve["name"]}"]').first
        there = ys != frames.GAP / frames.UNIT
        marks = group.locator("use")
        if marks.count():
            page_x, page_y = (
                np.array(
                    marks.evaluate_all(
                        "(nodes) => nodes.filter((n) => n.getAttribute('visibility') !== 'hidden')"
                        ".map((n) => [+n.getAttribute('x'), +n.getAttribute('y')])"
                    )
                )
                .reshape(-1, 2)
                .T
            )
        else:
            path = group.locator("path").first.get_attribute("d") or ""
            pairs = np.array([pair.split() for pair in path.replace("M", "L").split("L")[1:]], float).reshape(-1, 2)
            page_x, page_y = pairs.T
            assert path.count("M") == (there & ~np.append(False, there[:-1])).sum(), curve["name"]
        np.testing.assert_allclose(page_x, xs[there], atol=0.03, err_msg=curve["name"])
        np.testing.assert_allclose(page_y, ys[there], atol=0.03, err_msg=curve["name"])
    assert root.locator(".summary").inner_text() == explorer.summary()
