"""The four suspects of notebook 03: two are PPO, one forgets who drew the actions, one goes the wrong way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import PPOTrainer
from artifex_rl.envs import CartPole
from artifex_rl.lab.checks import check
from artifex_rl.lab.exercises.ppo_suspects import SUSPECTS
from artifex_rl.lab.memory import give_memory_back
from artifex_rl.models import ActorCritic
from artifex_rl.rl.onpolicy import collect_trajectory


def make(name):
    kind, config = SUSPECTS[name]
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(0))
    return kind(model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param), config)


@pytest.fixture(scope="module")
def batch():
    batch, _ = collect_trajectory(CartPole(), make("Grey").model, jax.random.key(0), 64, 2)
    return batch


def measure(name, batch, model=None):
    """Metrics of the trainer's own loss, with another policy than the one that collected the batch."""
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(1)) if model is None else model
    return jax.tree.map(float, make(name).compute_loss(model, batch, jax.random.key(0))[1])


@pytest.mark.parametrize("name", ["Red", "Grey"])
def test_the_healthy_ones_are_ppo(name):
    kind, config = SUSPECTS[name]
    assert kind is PPOTrainer
    assert check(f"ppo_{name.lower()}").right == "a"
    assert (config.num_epochs, config.num_minibatches) == ((1, 1) if name == "Red" else (4, 4))


@pytest.mark.slow
def test_who_looks_at_a_batch_once_never_sees_a_ratio_but_1(batch):
    for name, moves in (("Red", False), ("Grey", True)):
        trainer = make(name)
        _, metrics = jax.jit(trainer.update)(trainer.state, batch, jax.random.key(1))
        assert (metrics["approx_kl"] > 1e-7) == moves


def test_the_forgetful_one_sees_no_move_at_all(batch):
    seen, right = measure("Blue", batch), measure("Grey", batch)
    assert (seen["approx_kl"], seen["kl_divergence"], seen["clip_fraction"]) == (0, 0, 0)
    assert right["approx_kl"] > 0
    assert seen["policy_loss"] == pytest.approx(0, abs=1e-6)
    assert seen["value_loss"] == pytest.approx(right["value_loss"], rel=1e-5)


def test_the_flipped_one_has_the_surrogate_of_the_opposite_advantages(batch):
    seen = measure("Green", batch)
    grey = make("Grey")
    rows, _ = grey.estimate_advantages(batch)
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(1))
    opposite = rows | {"advantages": -rows["advantages"]}
    expected = grey.compute_loss(model, opposite, jax.random.key(0))[1]
    assert seen["policy_loss"] == pytest.approx(float(expected["policy_loss"]), rel=1e-4, abs=1e-6)
    assert seen["value_loss"] == pytest.approx(float(expected["value_loss"]), rel=1e-5)
    assert seen["approx_kl"] > 0


def test_the_two_bugs_share_one_compiled_run():
    (first, blue), (second, green) = SUSPECTS["Blue"], SUSPECTS["Green"]
    assert first is second and jax.tree.structure(blue) == jax.tree.structure(green)


def test_giving_memory_back_takes_nothing_that_is_in_use():
    array, text = jnp.arange(1000.0), b"x" * 10_000_000
    assert give_memory_back("an event") in (True, False)
    np.testing.assert_array_equal(array, np.arange(1000.0))
    assert text == b"x" * 10_000_000
