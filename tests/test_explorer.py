"""The explorer without a browser: what it refuses, what it sends to the page, and whose maths it is."""

import base64
import json
import re
import zlib

import ipywidgets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import traitlets
from matplotlib.figure import Figure

from artifex_rl import compute_clipped_surrogate, compute_discounted_returns, compute_gae_advantages
from artifex_rl.data import load_cartpole_rollout
from artifex_rl.lab import AdvantageExplorer, ClipExplorer, Control, Explorer, ReturnsExplorer, frames
from artifex_rl.lab.canvas import INK

DEMO = load_cartpole_rollout()
READY_MADE = [AdvantageExplorer, ClipExplorer, ReturnsExplorer]


@jax.jit
def demo_advantages(gamma, gae_lambda):
    return compute_gae_advantages(
        DEMO.rewards, DEMO.values, DEMO.dones, gamma, gae_lambda, DEMO.truncations, DEMO.next_values
    )


def unpack(data: bytes, rows: int, width: int):
    """The page's decoder, written a second time: differences from row to row, low bytes, high bytes, texts."""
    raw = zlib.decompress(data)
    cells = rows * width
    low, high = (np.frombuffer(raw[i * cells : (i + 1) * cells], np.uint8).astype(int) for i in (0, 1))
    points = np.cumsum((low + 256 * high).reshape(rows, width), axis=0).astype(np.int16)
    return points, raw[2 * cells :].decode().split("\n")


def heights(explorer, points, name):
    """Data heights of one curve over a line's own x, from rows of packed points."""
    start = 0
    for curve in explorer._figure["curves"]:
        size = curve["count"] * (1 if curve["x"] else 2)
        if curve["name"] == name:
            slope, offset = curve["data"]["y"]
            return points[:, start : start + size] / explorer._figure["unit"] * slope + offset, abs(slope)
        start += size
    raise KeyError(name)


def width(explorer):
    return sum(curve["count"] * (1 if curve["x"] else 2) for curve in explorer._figure["curves"])


def moved(explorer, **knobs):
    explorer.set(**knobs)
    return explorer


def parabola(controls=None, curves=None, figure=None, describe=None):
    """A small explorer of y = a·x²."""
    x = np.linspace(-1, 1, 11)

    def draw(curves, limits):
        fig = Figure(figsize=(4, 3))
        axes = fig.subplots()
        axes.plot(x, curves["y"], gid="y", **INK["blue"])
        axes.set(ylim=limits["y"])
        return fig

    return Explorer(
        controls or [Control("a", 0, 2, 0.5, 1)],
        curves or (lambda a: {"y": a * jnp.asarray(x, jnp.float32) ** 2}),
        figure or draw,
        describe or (lambda knobs, curves: f"a is {knobs['a']:g}"),
    )


# Controls ---------------------------------------------------------------------------------------------------------


def test_stops_are_the_floats_that_they_read():
    assert Control("gamma", 0.0, 1.0, 0.01, 0.99).stops == tuple(i / 100 for i in range(101))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a b", 0, 1, 0.1, 0), "name"),
        (("_a", 0, 1, 0.1, 0), "name"),
        (("a", 1, 0, 0.1, 0), "low < high"),
        (("a", 0, 1, 0, 0), "step"),
        (("a", 0, 1, -0.1, 0), "step"),
        (("a", 0, 1, 0.3, 0), "whole number"),
        (("a", 0, 1, 1e-6, 0), "whole number"),
        (("a", 0, 1, 0.1, 2), "from 0 to 1"),
        (("a", 0, float("nan"), 0.1, 0), "a.high"),
        (("a", 0, 1, 0.1, "x"), "a.value"),
        (("a", 0, True, 0.1, 0), "a.high"),
    ],
)
def test_a_control_that_is_no_slider_is_refused(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Control(*arguments)


# Setting knobs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"gamma": 2}, "gamma: got 2, needs a number from 0 to 1"),
        ({"gamma": -0.01}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": float("inf")}, "gamma"),
        ({"gamma": "high"}, "gamma"),
        ({"gamma": None}, "gamma"),
        ({"gamma": True}, "gamma"),
        ({"gamma": [0.5]}, "gamma"),
        ({"gama": 0.9}, "gama, needs some of gamma, gae_lambda"),
        ({"gae_lambda": 0.5, "gamma": 2}, "gamma"),
    ],
)
def test_a_bad_value_is_refused_and_nothing_moves(knobs, said):
    explorer = AdvantageExplorer()
    before = explorer.fingerprint()
    with pytest.raises(ValueError, match=re.escape(said)):
        explorer.set(**knobs)
    assert explorer.fingerprint() == before


def test_a_bad_assignment_is_refused_and_nothing_moves():
    explorer = AdvantageExplorer()
    with pytest.raises(traitlets.TraitError, match="needs a number from 0 to 1"):
        explorer.gamma = 2
    assert explorer.gamma == 0.99


def test_a_value_between_stops_goes_to_the_nearest_as_a_slider_would():
    explorer = moved(AdvantageExplorer(), gamma=0.9049, gae_lambda=np.float32(0.5))
    assert (explorer.gamma, explorer.gae_lambda) == (0.9, 0.5)
    explorer.gamma = 0.126
    assert explorer.gamma == 0.13


def test_knobs_link_with_other_widgets():
    explorer, slider = AdvantageExplorer(), ipywidgets.FloatSlider(value=0.5, min=0, max=1, step=0.01)
    link = ipywidgets.link((slider, "value"), (explorer, "gamma"))
    assert explorer.gamma == 0.5
    explorer.set(gamma=0.25)
    assert slider.value == 0.25
    link.unlink()


# What is drawn is the library's own ----


@pytest.mark.parametrize("knobs", [{}, {"gamma": 0.5}, {"gamma": 1, "gae_lambda": 0}, {"gamma": 0, "gae_lambda": 1}])
def test_curves_are_the_librarys_advantages(knobs):
    explorer = moved(AdvantageExplorer(), **knobs)
    curves, gamma = explorer.curves(), explorer.gamma
    np.testing.assert_allclose(
        curves["advantages"], demo_advantages(gamma, explorer.gae_lambda), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(curves["td_errors"], demo_advantages(gamma, 0.0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(curves["monte_carlo"], demo_advantages(gamma, 1.0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(curves["fade"], (gamma * explorer.gae_lambda) ** np.arange(101.0), atol=1e-5)


@pytest.mark.parametrize("name", ["gamma", "gae_lambda"])
def test_a_strip_holds_the_librarys_curve_at_every_stop(name):
    explorer = moved(AdvantageExplorer(), gamma=0.9, gae_lambda=0.8)
    explorer.set_state({"_request": {"knobs": explorer.knobs}})
    strip = explorer._strips[name]
    assert strip["held"] == {k: v for k, v in explorer.knobs.items() if k != name}
    points, texts = unpack(strip["data"], 101, width(explorer))
    drawn, one_point = heights(explorer, points, "advantages")
    for row in range(101):
        knobs = {**explorer.knobs, name: row / 100}
        expected = np.asarray(demo_advantages(**knobs))
        np.testing.assert_allclose(drawn[row], expected, atol=one_point * 0.026, rtol=0)
        assert f"γ = {knobs['gamma']:.2f} and λ = {knobs['gae_lambda']:.2f}" in texts[row]


def test_the_grid_holds_the_librarys_curve_for_every_pair_of_its_stops():
    explorer = AdvantageExplorer()
    grid = explorer._make_grid()
    gammas, lambdas = grid["stops"]["gamma"], grid["stops"]["gae_lambda"]
    assert {0, 99, 100} <= set(gammas) and {0, 95, 100} <= set(lambdas) and len(gammas) > 20
    points, _ = unpack(grid["data"], len(gammas) * len(lambdas), width(explorer))
    drawn, one_point = heights(explorer, points, "advantages")
    rng = np.random.default_rng(0)
    for row in rng.choice(len(points), 60, replace=False):
        gamma, gae_lambda = gammas[row // len(lambdas)] / 100, lambdas[row % len(lambdas)] / 100
        np.testing.assert_allclose(drawn[row], demo_advantages(gamma, gae_lambda), atol=one_point * 0.026, rtol=0)


@pytest.mark.parametrize("make", READY_MADE)
def test_the_page_starts_with_the_paths_that_matplotlib_drew(make):
    explorer = make()
    control = explorer.controls[0]
    points, _ = unpack(explorer._strips[control.name]["data"], len(control.stops), width(explorer))
    row, start = points[control.index(control.value)] / frames.UNIT, 0
    for curve in explorer._figure["curves"]:
        size, n = curve["count"] * (1 if curve["x"] else 2), curve["count"]
        group = explorer._figure["svg"].split(f'<g id="{curve["name"]}">')[1].split("</g>")[0]
        if curve["x"]:
            path = re.search(r'<path d="([^"]*)"', group)[1]
            drawn = np.array(re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path), float)
            sent = np.stack([curve["x"], row[start : start + n]], axis=1)
        else:
            drawn = np.array(re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"', group), float)
            sent = row[start : start + size].reshape(2, n).T
        np.testing.assert_allclose(drawn, sent, atol=0.026)
        start += size


def test_returns_are_the_librarys_returns():
    explorer = moved(ReturnsExplorer(rewards=[1.0, 0.0, 2.0], dones=[0, 1, 1]), gamma=0.5)
    np.testing.assert_allclose(explorer.curves()["returns"], [1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        ReturnsExplorer().curves()["returns"], compute_discounted_returns(DEMO.rewards, 0.99, DEMO.dones), rtol=1e-5
    )


def test_the_clip_explorer_draws_the_surrogate_and_its_gradient():
    explorer = moved(ClipExplorer(), clip_param=0.3, clip_param_high=0.1, ratio=1.5)
    curves = explorer.curves()
    ratios = np.linspace(0.01, 2.01, 201)
    np.testing.assert_allclose(curves["objective_better"], np.minimum(ratios, 1.1), rtol=1e-4)
    np.testing.assert_allclose(curves["objective_worse"], -np.maximum(ratios, 0.7), rtol=1e-4)
    off_bound = np.abs(ratios - 1.1) > 1e-3
    np.testing.assert_allclose(curves["gradient_better"][off_bound], (ratios * (ratios < 1.1))[off_bound], rtol=1e-4)
    off_bound = np.abs(ratios - 0.7) > 1e-3
    np.testing.assert_allclose(curves["gradient_worse"][off_bound], -(ratios * (ratios > 0.7))[off_bound], rtol=1e-4)
    np.testing.assert_allclose(curves["here_better"], [[1.5, 1.1], [1.5, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(curves["here_worse"], [[1.5, -1.5], [1.5, -1.5]], rtol=1e-5)
    surrogate = compute_clipped_surrogate(np.log([1.5]), [0.0], [1.0], 0.3, 0.1)
    np.testing.assert_allclose(curves["here_better"][0, 1], surrogate[0], rtol=1e-6)
    assert explorer.summary().endswith("is pushed with 0 and one that was worse with -1.5.")
    assert moved(explorer, ratio=0.5).summary().endswith("is pushed with 0.5 and one that was worse with 0.")


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (AdvantageExplorer, {"rewards": [1.0, 1.0]}, "values"),
        (AdvantageExplorer, {"rewards": [1.0, 1.0], "values": [1.0], "dones": [0, 1]}, "values"),
        (AdvantageExplorer, {"rewards": [1.0, 1.0], "values": [1.0, 1.0], "dones": [1]}, "dones"),
        (
            AdvantageExplorer,
            {"rewards": np.ones((3, 2)), "values": np.ones((3, 2)), "dones": np.ones((3, 2))},
            "rewards",
        ),
        (ReturnsExplorer, {"rewards": np.ones((3, 2))}, "rewards"),
        (ReturnsExplorer, {"rewards": [1.0, 2.0], "dones": [1, 1, 1]}, "dones"),
    ],
)
def test_an_array_of_wrong_shape_is_named(make, arguments, said):
    with pytest.raises(ValueError, match=f"^{said}: got"):
        make(**arguments)


# Text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", READY_MADE)
def test_the_output_bundle_is_a_widget_a_picture_and_a_sentence(make):
    explorer = make()
    data, _ = explorer._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] == explorer.summary()
    assert re.fullmatch(r"[A-ZW].*[.]", explorer.summary()) and "0x" not in explorer.summary()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_the_picture_shows_what_the_sliders_say():
    explorer = AdvantageExplorer()
    before = explorer._repr_mimebundle_()[0]["image/png"]
    explorer.set(gamma=0.5)
    assert explorer._repr_mimebundle_()[0]["image/png"] != before


def test_a_fingerprint_sees_a_tenth_of_a_percent():
    exact = AdvantageExplorer()
    near = AdvantageExplorer(
        DEMO.rewards, DEMO.values * 1.001, DEMO.dones, truncations=DEMO.truncations, next_values=DEMO.next_values
    )
    assert exact.fingerprint() != near.fingerprint()
    assert exact.fingerprint() == AdvantageExplorer().fingerprint()


def test_a_fingerprint_sees_the_order_of_points():
    digest = [
        parabola(curves=lambda a, order=order: {"y": a * jnp.arange(11.0)[::order]}).fingerprint()
        for order in (1, -1)
    ]
    assert digest[0] != digest[1]


# Errors in a curve function ----


def test_an_error_is_raised_and_shown_and_nothing_moves():
    allowed = {"yes": True}

    def describe(knobs, curves):
        if not allowed["yes"]:
            raise ZeroDivisionError("no such curve")
        return "fine"

    explorer = parabola(describe=describe)
    allowed["yes"] = False
    with pytest.raises(ZeroDivisionError):
        explorer.set(a=2)
    assert explorer.a == 1 and "ZeroDivisionError: no such curve" in explorer._error
    with pytest.raises(ZeroDivisionError):
        explorer.a = 0
    assert explorer.a == 1
    allowed["yes"] = True
    explorer.set(a=2)
    assert explorer.a == 2 and explorer._error == ""


def test_an_error_in_the_curves_is_raised_when_the_explorer_is_made():
    def curves(a):
        raise RuntimeError("bad curve")

    with pytest.raises(RuntimeError, match="bad curve"):
        parabola(curves=curves)


def test_an_error_while_the_page_asks_is_shown_in_the_widget():
    fail = {"now": False}

    def describe(knobs, curves):
        if fail["now"]:
            raise ValueError("broken while dragging")
        return "fine"

    explorer = parabola(
        [Control("a", 0, 2, 0.5, 1), Control("b", 0, 1, 0.5, 0)],
        lambda a, b: {"y": jnp.full(11, a + b)},
        None,
        describe,
    )
    fail["now"] = True
    with pytest.raises(ValueError, match="broken while dragging"):
        explorer.set_state({"_request": {"knobs": {"a": 2, "b": 1}}})
    assert explorer._error == "ValueError: broken while dragging"


# Pieces that do not fit ----


def test_pieces_that_do_not_fit_are_named():
    def figure_with(*gids, points=11):
        def figure(curves, limits):
            fig = Figure()
            axes = fig.subplots()
            for gid in gids:
                axes.plot(np.zeros(points), gid=gid)
            return fig

        return figure

    with pytest.raises(ValueError, match="figure: got 0 lines with gid 'y'"):
        parabola(figure=figure_with("z"))
    with pytest.raises(ValueError, match="figure: got 2 lines with gid 'y'"):
        parabola(figure=figure_with("y", "y"))
    with pytest.raises(ValueError, match="has 5 points, its curve has 11"):
        parabola(figure=figure_with("y", points=5))
    with pytest.raises(ValueError, match=r"shape \(11, 3\)"):
        parabola(figure=figure_with("y"), curves=lambda a: {"y": jnp.zeros((11, 3))})
    with pytest.raises(ValueError, match="controls"):
        parabola([Control("a", 0, 1, 0.5, 0)] * 2)
    with pytest.raises(ValueError, match="already has"):
        parabola([Control("layout", 0, 1, 0.5, 0)], lambda layout: {"y": jnp.zeros(11)})
    with pytest.raises(ValueError, match="line break"):
        parabola(describe=lambda knobs, curves: "two\nlines")


def test_a_marker_that_is_a_gap_at_first_is_there_to_be_moved():
    """matplotlib writes no marker for NaN, and the page can only move what is there."""

    def figure(curves, limits):
        figure = Figure()
        axes = figure.subplots()
        axes.plot(*curves["dots"].T, "o", gid="dots")
        axes.plot([1, 2, 3], curves["fixed"], "s", gid="fixed")
        axes.set(xlim=(0, 4), ylim=(0, 2))
        return figure

    def curves(a):
        seen = jnp.where(a > jnp.array([0.5, 0.5, -1.0]), 1.0, jnp.nan)
        return {"dots": jnp.stack([seen, seen], axis=1), "fixed": seen}

    explorer = Explorer([Control("a", 0, 1, 0.5, 0)], curves, figure, lambda knobs, curves: "Dots.")
    groups = re.findall(r'<g id="(dots|fixed)">(.*?)</g>\s*</g>', explorer._figure["svg"], re.DOTALL)
    assert {name: text.count("<use") for name, text in groups} == {"dots": 3, "fixed": 3}
    assert explorer._figure["curves"][1]["x"] == sorted(explorer._figure["curves"][1]["x"])  # where they were put
    np.testing.assert_array_equal(explorer.curves()["fixed"], [np.nan, np.nan, 1])


def test_a_curve_that_is_not_finite_has_gaps():
    x = jnp.arange(11.0)
    explorer = parabola(curves=lambda a: {"y": jnp.where(x > 5, jnp.nan, a * x)})
    points, _ = unpack(explorer._strips["a"]["data"], 5, 11)
    assert ((points == frames.GAP) == (np.arange(11) > 5)).all()
    assert "gaps 5" in explorer.fingerprint()


# Between kernel and page ----


def test_the_page_gets_frame_and_strips_for_where_it_stands():
    explorer = AdvantageExplorer()
    kept = explorer._strips["gamma"]
    explorer.set_state({"gamma": 0.3, "_request": {"knobs": {"gamma": 0.3, "gae_lambda": 0.95}}})
    assert explorer._strips["gamma"] == kept  # it holds for λ = 0.95 still
    assert explorer._strips["gae_lambda"]["held"] == {"gamma": 0.3}
    points, texts = unpack(explorer._frame["data"], 1, width(explorer))
    drawn, one_point = heights(explorer, points, "advantages")
    np.testing.assert_allclose(drawn[0], demo_advantages(0.3, 0.95), atol=one_point * 0.026)
    assert texts == [explorer.summary()]


def test_sliders_never_recompile():
    AdvantageExplorer()
    compiled = frames._evaluate._cache_size()
    explorer = AdvantageExplorer()  # other arrays of the same shape
    for gamma in (0.1, 0.5, 0.77):
        explorer.set(gamma=gamma, gae_lambda=1 - gamma)
        explorer.set_state({"_request": {"knobs": explorer.knobs}})
    explorer._make_grid()
    assert frames._evaluate._cache_size() == compiled


@pytest.mark.slow
@pytest.mark.parametrize("make", READY_MADE)
def test_a_stored_explorer_is_small_and_always_the_same(make, monkeypatch):
    monkeypatch.setenv("ARTIFEX_RL_EMBED", "state")
    first, second = (make().get_state() for _ in range(2))
    for state in (first, second):
        state.pop("layout")
    assert first == second

    def weight(value):
        if isinstance(value, dict):
            return sum(weight(entry) for entry in value.values())
        return len(value) * 4 / 3 if isinstance(value, bytes) else len(json.dumps(value))

    png = len(make()._repr_mimebundle_()[0]["image/png"])
    assert weight(first) < 300_000 and weight(first) + png < 400_000


@pytest.mark.slow
def test_what_is_stored_holds_where_code_left_the_sliders(monkeypatch):
    monkeypatch.setenv("ARTIFEX_RL_EMBED", "state")
    explorer = moved(AdvantageExplorer(), gamma=0.37, gae_lambda=0.11)
    assert explorer._strips["gamma"]["held"] == {"gae_lambda": 0.11}
    explorer.gae_lambda = 0.5
    assert explorer._strips["gamma"]["held"] == {"gae_lambda": 0.5}
    assert explorer._strips["gae_lambda"]["held"] == {"gamma": 0.37}


@pytest.mark.slow
def test_html_mode_gives_a_page_instead_of_a_widget(monkeypatch):
    monkeypatch.setenv("ARTIFEX_RL_EMBED", "html")
    data, _ = AdvantageExplorer()._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"}
    assert not re.search(r"""(src|href)=["']https?:|@import|import\(""", data["text/html"])


def test_curves_may_be_points_that_move_both_ways():
    def figure(curves, limits):
        fig = Figure(figsize=(4, 4))
        axes = fig.subplots()
        axes.plot(*curves["circle"].T, gid="circle")
        axes.set(xlim=(-2, 2), ylim=(-2, 2))
        return fig

    angle = jnp.linspace(0, 6.28, 30)
    explorer = parabola(
        curves=lambda a: {"circle": a * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)}, figure=figure
    )
    points, _ = unpack(explorer._strips["a"]["data"], 5, 60)
    still, large = points[0].reshape(2, 30), points[-1].reshape(2, 30)
    assert (still == still[:, :1]).all() and np.ptp(large[0]) > 1000 and np.ptp(large[1]) > 1000


@pytest.mark.slow
def test_jax_partial_spares_compilation_for_data_of_the_same_shape():
    def scaled(data, a):
        return {"y": a * data}

    parabola(curves=jax.tree_util.Partial(scaled, jnp.arange(11.0)))
    compiled = frames._evaluate._cache_size()
    explorer = parabola(curves=jax.tree_util.Partial(scaled, jnp.ones(11)))
    assert frames._evaluate._cache_size() == compiled
    np.testing.assert_array_equal(explorer.curves()["y"], np.ones(11))
