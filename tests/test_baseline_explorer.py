"""BaselineExplorer: its moments against brute force, its gradients against the trainer's, and what an offset does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import REINFORCEConfig, REINFORCETrainer, one_step_batch
from artifex_rl.lab import BaselineExplorer
from artifex_rl.lab.baseline_explorer import (
    BASELINES,
    LEAST_VARIANCE,
    OFFSETS,
    _constants,
    exact_moments,
    read_policy,
    sample_gradients,
)

REWARDS, LOGITS = jnp.array([0.1, 0.9, -0.4]), jnp.array([0.3, -0.5, 1.0])
NAMES = list(BASELINES)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_mean_and_covariance_are_those_of_all_batches(samples):
    """Every batch that can be drawn, with its probability."""
    probabilities, scores = read_policy(LOGITS)
    batches = np.array(list(itertools.product(range(3), repeat=samples)))
    weights = np.prod(np.asarray(probabilities)[batches], axis=1)
    constants, mask = _constants(REWARDS, probabilities, scores), jnp.ones(samples, bool)
    every = jax.jit(jax.vmap(lambda a: sample_gradients(scores[a], REWARDS[a], mask, constants)))(
        jnp.asarray(batches)
    )
    means, covariances = exact_moments(REWARDS, probabilities, scores, jnp.float32(samples))
    expected = np.einsum("b,bjk->jk", weights, every)
    np.testing.assert_allclose(means, expected, atol=1e-6)
    centred = np.asarray(every) - expected
    np.testing.assert_allclose(covariances, np.einsum("b,bjk,bjl->jkl", weights, centred, centred), atol=1e-6)


def test_every_baseline_but_the_batch_mean_is_unbiased():
    probabilities, scores = read_policy(LOGITS)
    means, _ = exact_moments(REWARDS, probabilities, scores, jnp.float32(5))
    true = jax.grad(lambda logits: jax.nn.softmax(logits) @ REWARDS)(LOGITS)
    for row, name in enumerate(NAMES):
        np.testing.assert_allclose(means[row], true * (0.8 if name == "mean" else 1.0), atol=1e-6)


class Bandit(nnx.Module):
    def __init__(self):
        self.logits = nnx.Param(LOGITS)

    def __call__(self, observations):
        return jnp.broadcast_to(self.logits[...], (len(observations), 3))


@pytest.mark.parametrize("name", ["none", "mean", "leave_one_out"])
def test_the_gradient_is_the_trainers(name):
    actions, rewards = np.array([0, 1, 2, 1, 2]), np.array([0.3, 1.0, -0.2, 0.5, 0.0], np.float32)
    model = Bandit()
    config = REINFORCEConfig(baseline=name, entropy_coeff=0.0, normalize_returns=False)
    trainer = REINFORCETrainer(model, nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param), config)
    trainer.train_step(one_step_batch(np.zeros((5, 1), np.float32), actions, rewards))
    _, scores = read_policy(LOGITS)
    ours = sample_gradients(scores[actions], jnp.asarray(rewards), jnp.ones(5, bool), {"value": 0.0, "optimal": 0.0})
    np.testing.assert_allclose(model.logits[...] - LOGITS, ours[NAMES.index(name)], atol=1e-6)


@pytest.mark.slow
def test_an_offset_moves_what_has_no_baseline_and_nothing_else():
    explorer = BaselineExplorer()
    before = explorer.curves()
    explorer.set(offset=2)
    after = explorer.curves()
    np.testing.assert_allclose(before["true"], after["true"], atol=1e-6)
    for name in NAMES:
        there, here = after[f"here_{name}"][0, 1], before[f"here_{name}"][0, 1]
        if name == "none":
            assert there > 20 * here
        else:
            np.testing.assert_allclose(there, here, rtol=1e-3)
            np.testing.assert_allclose(after[f"cloud_{name}"], before[f"cloud_{name}"], atol=1e-5)


def test_no_offset_does_better_than_the_best_constant():
    curves = BaselineExplorer().curves()
    none, best = curves["variance_none"], curves["variance_optimal"]
    assert (none >= best * (1 - 1e-4)).all()
    assert none.min() < 1.05 * best[0]
    assert (curves["variance_value"] >= best * (1 - 1e-4)).all()


@pytest.mark.slow
def test_the_markers_stand_on_the_curves():
    explorer = BaselineExplorer()
    explorer.set(offset=1.2, samples=3, sharpness=0.5)
    curves = explorer.curves()
    at = int(np.abs(OFFSETS - 1.2).argmin())
    for name in NAMES:
        np.testing.assert_allclose(curves[f"here_{name}"][0], [1.2, curves[f"variance_{name}"][at]], rtol=1e-4)


@pytest.mark.parametrize("knobs", [{}, {"offset": -2, "samples": 2, "sharpness": 0}, {"samples": 32, "sharpness": 3}])
def test_the_cloud_has_the_exact_mean_and_deviation(knobs):
    explorer = BaselineExplorer()
    explorer.set(**knobs)
    curves = explorer.curves()
    for name in NAMES:
        cloud, (low, high) = curves[f"cloud_{name}"][:, 0], curves[f"spread_{name}"][:, 0]
        deviation = (high - low) / 2
        assert abs(cloud.mean() - curves[f"mean_{name}"][0, 0]) < 4 * deviation / np.sqrt(len(cloud))
        assert 0.5 < cloud.std() / deviation < 1.6


def test_twice_the_samples_halve_the_variance_of_a_constant_baseline():
    explorer = BaselineExplorer()
    explorer.set(samples=8)
    eight = explorer.curves()
    explorer.set(samples=16)
    sixteen = explorer.curves()
    for name in ("none", "value", "optimal"):
        np.testing.assert_allclose(sixteen[f"variance_{name}"], eight[f"variance_{name}"] / 2, rtol=1e-4)


@pytest.mark.slow
def test_it_takes_rewards_and_logits_of_ones_own():
    explorer = BaselineExplorer(rewards=[1.0, 0.0], logits=[0.0, 0.0])
    explorer.set(samples=4)
    # Two equal arms: s = ±(½, −½), g = (¼, −¼); without a baseline a half of the samples says (½, −½), a half 0.
    np.testing.assert_allclose(explorer.curves()["true"][:, 0], np.sqrt(2) / 4, rtol=1e-5)
    np.testing.assert_allclose(explorer.curves()["here_none"][0, 1], (0.25 - 0.125) / 4, rtol=1e-4)
    np.testing.assert_allclose(explorer.curves()["here_optimal"][0, 1], LEAST_VARIANCE, atol=1e-7)


@pytest.mark.parametrize(
    ("rewards", "logits", "said"),
    [
        ([1.0], None, "rewards"),
        (np.ones((2, 2)), None, "rewards"),
        ([1.0, 1.0, 1.0], None, "rewards"),
        ([1.0, np.nan], None, "rewards"),
        ([1.0, 0.0], [0.0], "logits"),
        ([1.0, 0.0], [0.0, np.inf], "logits"),
        (None, [0.0, 1.0], "rewards"),
        (np.arange(100.0), None, "rewards"),
    ],
)
def test_what_is_no_bandit_is_refused(rewards, logits, said):
    with pytest.raises(ValueError, match=f"^{said}: got"):
        BaselineExplorer(rewards, logits)
