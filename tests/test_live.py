"""Live training: what a panel trains is what the trainer trains, and a hand may move anything at any moment."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    PPOConfig,
    PPOTrainer,
    REINFORCEConfig,
    REINFORCETrainer,
    sweep,
)
from artifex_rl.envs import CartPole
from artifex_rl.lab import Environment, LiveTraining
from artifex_rl.models import MLP, ActorCritic
from artifex_rl.rl.onpolicy import collect_trajectory
from artifex_rl.rl.trainer import SAMPLES


def with_rate(model, rate=1e-2):
    return nnx.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=rate), wrt=nnx.Param)


def policy(seed=0):
    return MLP(3, [8], 4, rngs=nnx.Rngs(seed))


OBSERVATIONS = np.asarray(jax.random.normal(jax.random.key(1), (48, 3)))
PAIRS = {"observations": OBSERVATIONS, "chosen": np.arange(48) % 4, "rejected": (np.arange(48) + 1) % 4}


def make_dpo(seed=0, **config):
    model = policy(seed)
    return DPOTrainer(model, with_rate(model), DPOConfig(**config), reference_model=policy(seed + 1))


def make_reinforce(**config):
    model = policy()
    return REINFORCETrainer(model, with_rate(model), REINFORCEConfig(**config))


def make_grpo(**config):
    model = policy()
    return GRPOTrainer(model, with_rate(model), GRPOConfig(num_generations=4, **config))


def make_ppo(**config):
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(0))
    return PPOTrainer(model, with_rate(model, 1e-3), PPOConfig(num_epochs=1, num_minibatches=2, **config))


def score(samples, conditions):
    """Python that no compiler sees: the reward is 1 for the action that the observation's sign asks for."""
    pairs = zip(samples, conditions, strict=True)
    return [float(int(sample) == (2 if condition[0] > 0 else 1)) for sample, condition in pairs]


def draw(model, key):
    observations = jnp.asarray(OBSERVATIONS[:16])
    actions = jax.random.categorical(key, model(observations))
    return {
        "observations": observations,
        "actions": actions,
        "rewards": (actions == 2).astype(jnp.float32),
        "dones": jnp.ones(16, bool),
    }


def assert_same(trainer, other):
    for a, b in zip(jax.tree.leaves(trainer.state), jax.tree.leaves(other.state), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_same_history(history, expected):
    assert set(history) >= set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(history[name], values, err_msg=name)


# A panel trains as `fit` does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_mapping_is_trained_on_as_fit_does(batch_size):
    """Over the ends of epochs, too: 48 rows are four batches of 10, and 8 rows that wait."""
    by_hand, trainer = make_dpo(), make_dpo()
    expected = by_hand.fit(PAIRS, steps=23, batch_size=batch_size)
    panel = LiveTraining(trainer, PAIRS, batch_size=batch_size)
    panel.run(9)
    panel.run(14)
    assert_same(trainer, by_hand)
    assert_same_history(panel.history, expected)
    assert panel.compilations == 1


def test_a_function_draws_its_batches_as_in_a_sweep():
    trainer = make_reinforce()
    expected = sweep(lambda seed: make_reinforce(), seeds=[0], data=draw, steps=12)
    panel = LiveTraining(trainer, draw)
    panel.run(12)
    for name, values in expected.metrics.items():
        np.testing.assert_allclose(panel.history[name], values[0], rtol=1e-4, atol=1e-6, err_msg=name)


def test_an_environment_is_acted_in_from_where_it_stood():
    place, by_hand, trainer = Environment(CartPole(), num_steps=16, num_envs=3), make_ppo(), make_ppo()
    panel = LiveTraining(trainer, place)
    panel.run(5)
    panel.run(2)

    base = jax.random.fold_in(by_hand.key, SAMPLES)
    envs = jax.vmap(CartPole().reset)(jax.random.split(jax.random.fold_in(base, SAMPLES), 3))
    collect = jax.jit(
        lambda state, key, envs: collect_trajectory(CartPole(), by_hand.merge(state)[0], key, 16, 3, envs)
    )
    for step in range(7):
        batch, envs = collect(by_hand.state, jax.random.fold_in(base, step), envs)
        metrics = by_hand.train_step(batch)
        assert panel.history["loss"][step] == pytest.approx(metrics["loss"], rel=1e-4)
    for a, b in zip(by_hand.state.variables, trainer.state.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_python_scores_the_samples_as_in_train_step():
    by_hand, trainer = make_grpo(), make_grpo()
    expected = by_hand.fit({"observations": OBSERVATIONS[:6]}, steps=5, reward_fn=score)
    panel = LiveTraining(trainer, {"observations": OBSERVATIONS[:6]}, reward_fn=score)
    panel.run(2)
    panel.run(3)
    assert_same(trainer, by_hand)
    assert_same_history(panel.history, expected)
