"""PreferenceExplorer: the library's losses and their gradients, and the margins at which each is content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl import compute_preference_loss, compute_simpo_loss
from artifex_rl.data.scored_samples import load_scored_words
from artifex_rl.lab import PreferenceExplorer
from artifex_rl.lab.preference_explorer import LOSSES, MARGINS, TOP

STEP = MARGINS[1] - MARGINS[0]
SETTINGS = [
    {},
    {"beta": 0.5, "label_smoothing": 0.1, "gamma_beta_ratio": 1, "length": 12},
    {"beta": 0.05, "label_smoothing": 0.45, "gamma_beta_ratio": 2, "length": 1},
    {"beta": 1, "label_smoothing": 0.2, "gamma_beta_ratio": 0, "length": 20},
]


def moved(**knobs):
    explorer = PreferenceExplorer()
    explorer.set(**knobs)
    return explorer.knobs, explorer.curves()


def rest(curves, name):
    return curves[f"rest_{name}"][0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_losses_and_pushes_are_the_librarys(setting):
    knobs, curves = moved(**setting)
    beta, smoothing, length = knobs["beta"], knobs["label_smoothing"], jnp.full(1, knobs["length"])
    for name in LOSSES:

        def loss(margin, name=name):
            if name == "simpo":
                arrays = margin[None], jnp.zeros(1), length, length
                return compute_simpo_loss(*arrays, beta, knobs["gamma_beta_ratio"], "sigmoid", smoothing)
            return compute_preference_loss(margin, beta, name, smoothing)

        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))(jnp.asarray(MARGINS))
        unit = beta**2 if name == "ipo" else 1
        drawn = value * unit <= TOP
        np.testing.assert_array_equal(np.isfinite(curves[f"loss_{name}"]), drawn)
        np.testing.assert_allclose(curves[f"loss_{name}"][drawn], value[drawn] * unit, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(curves[f"push_{name}"], -gradient * unit / beta, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.25, 0.0), (0.5, 0.0), (0.2, 0.3)])
def test_ipo_is_content_at_its_target(beta, smoothing):
    _, curves = moved(beta=beta, label_smoothing=smoothing)
    assert abs(rest(curves, "ipo") - (1 - 2 * smoothing) / (2 * beta)) <= STEP / 2 + 1e-5


@pytest.mark.parametrize("beta", [0.05, 0.2, 1.0])
def test_hinge_is_content_from_its_kink_on(beta):
    _, curves = moved(beta=beta)
    assert 0 <= rest(curves, "hinge") - 1 / beta <= STEP
    beyond = 1 / beta + 1e-3 < MARGINS
    assert (curves["push_hinge"][beyond] == 0).all()
    np.testing.assert_allclose(curves["push_hinge"][1 / beta - 1e-3 > MARGINS], 1, rtol=1e-5)


@pytest.mark.parametrize(("beta", "smoothing"), [(0.2, 0.1), (0.5, 0.01), (1.0, 0.3)])
def test_smoothing_gives_dpo_an_end_and_robust_none(beta, smoothing):
    _, curves = moved(beta=beta)
    assert np.isnan(rest(curves, "sigmoid")) and np.isnan(rest(curves, "robust"))
    _, curves = moved(beta=beta, label_smoothing=smoothing)
    assert abs(rest(curves, "sigmoid") - np.log((1 - smoothing) / smoothing) / beta) <= STEP / 2 + 1e-4
    assert np.isnan(rest(curves, "robust")) and (curves["push_robust"] > 0).all()


def test_without_smoothing_robust_is_dpo_whose_push_at_no_margin_is_a_half():
    _, curves = moved()
    np.testing.assert_array_equal(curves["loss_robust"], curves["loss_sigmoid"])
    assert curves["push_sigmoid"][MARGINS == 0] == pytest.approx(0.5)
    assert curves["loss_sigmoid"][MARGINS == 0] == pytest.approx(np.log(2))


def test_simpo_divides_by_the_length_and_wants_a_margin_for_each_token():
    _, curves = moved(length=10, gamma_beta_ratio=0.5)
    assert curves["push_simpo"][MARGINS == 5] == pytest.approx(0.05)  # σ(0) / 10, at γ/β · length
    _, alike = moved(length=1, gamma_beta_ratio=0)
    np.testing.assert_allclose(alike["loss_simpo"], alike["loss_sigmoid"], rtol=1e-5)


@pytest.mark.slow
def test_the_means_are_over_the_real_pairs():
    pairs = load_scored_words()
    margins = pairs.chosen_log_probs - pairs.ref_chosen_log_probs
    margins = margins - (pairs.rejected_log_probs - pairs.ref_rejected_log_probs)
    _knobs, curves = moved(beta=0.1, label_smoothing=0.05)
    for name in ("sigmoid", "hinge", "robust", "ipo"):
        mean = compute_preference_loss(margins, 0.1, name, 0.05) * (0.01 if name == "ipo" else 1)
        np.testing.assert_allclose(curves[f"mean_{name}"], [mean], rtol=1e-4)
    own = PreferenceExplorer(margins=[0.0, 0.0])
    assert own.curves()["mean_sigmoid"][0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("margins", [np.ones((2, 2)), [], [1.0, np.nan], np.ones(100), "abc"])
def test_margins_that_are_none_are_refused(margins):
    with pytest.raises(ValueError, match=r"^margins: got"):
        PreferenceExplorer(margins)
