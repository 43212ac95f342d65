"""KLExplorer: values, gradients and resting points of the estimators, against closed forms on the path."""

import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl import Categorical, estimate_kl
from artifex_rl.data.scored_samples import load_scored_words
from artifex_rl.lab import KLExplorer
from artifex_rl.lab.kl_explorer import DISTANCES, MOST_PULL, _rest, estimator_moments, expected_pull

WORDS = load_scored_words()
REWARDS = (WORDS.p_italian - WORDS.p_italian.min()) / np.ptp(WORDS.p_italian)
LOGITS = WORDS.log_frequencies


def tilted(t):
    weights = np.exp(LOGITS.astype(float) + t * REWARDS)
    return weights / weights.sum()


def moved(**knobs):
    explorer = KLExplorer()
    explorer.set(**knobs)
    return explorer.curves()


def test_the_exact_curve_is_the_kl_of_the_path():
    expected = [np.sum(tilted(t) * np.log(tilted(t) / tilted(0))) for t in DISTANCES]
    np.testing.assert_allclose(moved()["exact"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_the_mean_is_that_of_the_librarys_estimates(name):
    curves = moved(samples=4)
    for i in (0, 17, 80):
        policy = Categorical(jnp.asarray(LOGITS + DISTANCES[i] * REWARDS)).log_probs
        estimates = np.asarray(estimate_kl(policy, Categorical(jnp.asarray(LOGITS)).log_probs, name))
        mean = tilted(DISTANCES[i]) @ estimates
        error = np.sqrt(tilted(DISTANCES[i]) @ (estimates - mean) ** 2 / 4)
        np.testing.assert_allclose(curves[f"mean_{name}"][i], mean, atol=1e-5)
        np.testing.assert_allclose(curves[f"high_{name}"][i] - mean, error, atol=1e-4)
        np.testing.assert_allclose(mean - curves[f"low_{name}"][i], error, atol=1e-4)


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    curves = moved()
    np.testing.assert_allclose(curves["mean_k1"], curves["exact"], atol=1e-5)
    np.testing.assert_allclose(curves["mean_k3"], curves["exact"], atol=1e-5)
    assert abs(curves["mean_k2"][40] - curves["exact"][40]) > 0.3


def test_in_the_loss_k1_pulls_not_at_all_and_k2_as_the_exact_kl_does():
    curves = moved(beta=0.2)
    np.testing.assert_allclose(curves["pull_k1"], 0, atol=1e-4)
    np.testing.assert_allclose(curves["pull_k2"], curves["pull_exact"], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(curves["pull_exact"], 0.2 * DISTANCES, rtol=2e-3, atol=1e-4)  # t Var(r) ÷ Var(r)


@pytest.mark.slow
def test_in_the_loss_k3_has_the_gradient_of_the_other_kl():
    for t in (0.5, 2.0, 5.0):
        step = 1e-3
        other = [np.sum(tilted(0) * np.log(tilted(0) / tilted(t + s))) for s in (-step, step)]
        pull = expected_pull(jnp.asarray(REWARDS), jnp.asarray(LOGITS), jnp.float32(t), "k3")
        np.testing.assert_allclose(pull, (other[1] - other[0]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("beta", [0.2, 0.3, 0.5, 1.0])
def test_the_policy_rests_at_one_over_beta(beta):
    curves = moved(beta=beta)
    assert float(_rest(curves["pull_exact"])) == pytest.approx(1 / beta, abs=0.01)
    assert float(_rest(curves["pull_k2"])) == pytest.approx(1 / beta, abs=0.02)
    assert _rest(curves["pull_k1"]) == "no distance drawn"
    rest = float(_rest(curves["pull_k3"]))  # where Var(r) = β (E_t[r] − E_0[r])
    gain = tilted(rest) @ REWARDS - tilted(0) @ REWARDS
    assert tilted(rest) @ REWARDS**2 - (tilted(rest) @ REWARDS) ** 2 == pytest.approx(beta * gain, rel=0.03)


def test_at_the_reference_there_is_nothing_to_estimate():
    for name in ("k1", "k2", "k3"):
        mean, deviation = estimator_moments(jnp.asarray(REWARDS), jnp.asarray(LOGITS), jnp.float32(0), name)
        assert mean == 0 and deviation == 0


@pytest.mark.parametrize("knobs", [{"distance": 0, "beta": 0.1, "samples": 1}, {"distance": 8, "beta": 1}])
def test_the_markers_stand_on_the_curves(knobs):
    curves = moved(**knobs)
    i = round(knobs["distance"] * 10)
    np.testing.assert_allclose(curves["here_exact"][0], [knobs["distance"], curves["exact"][i]], atol=1e-5)
    for name in ("exact", "k1", "k2", "k3"):
        drawn = np.nan_to_num(curves[f"pull_{name}"][i], nan=MOST_PULL)
        np.testing.assert_allclose(curves[f"here_pull_{name}"][0], [knobs["distance"], drawn], atol=1e-4)


@pytest.mark.slow
def test_rewards_of_any_scale_run_from_0_to_1():
    small, large = KLExplorer([0.0, 0.5, 1.0]), KLExplorer([-100.0, 0.0, 100.0])
    np.testing.assert_allclose(small.curves()["exact"], large.curves()["exact"], rtol=1e-5)


@pytest.mark.parametrize(
    ("rewards", "logits", "said"),
    [([2.0, 2.0], None, "rewards"), ([0.0, np.inf], None, "rewards"), ([0.0, 1.0], [1.0, 2.0, 3.0], "logits")],
)
def test_what_has_no_path_is_refused(rewards, logits, said):
    with pytest.raises(ValueError, match=f"^{said}: got"):
        KLExplorer(rewards, logits)
