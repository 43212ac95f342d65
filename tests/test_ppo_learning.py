"""PPO learns to balance a pole: whole runs on the pure-JAX CartPole, each one compiled call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import PPOConfig, PPOTrainer
from artifex_rl.envs import CartPole
from artifex_rl.models import ActorCritic
from artifex_rl.rl.onpolicy import episode_returns, train_in_environment


def make_trainer(num_updates, learning_rate, seed):
    """An actor-critic of 64 and 64, and Adam with a learning rate that ends at 0 with the run's last update."""
    model = ActorCritic(CartPole.observation_size, (64, 64), CartPole.num_actions, rngs=nnx.Rngs(seed))
    config = PPOConfig(num_epochs=4, num_minibatches=4)
    schedule = optax.linear_schedule(learning_rate, 0.0, num_updates * config.num_epochs * config.num_minibatches)
    return PPOTrainer(model, nnx.Optimizer(model, optax.adam(schedule, eps=1e-5), wrt=nnx.Param), config)


def train(trainers, num_updates, num_steps, num_envs):
    """Every trainer's run, side by side in one compiled call: the returns of its episodes, in order."""
    first = trainers[0]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trainer.state for trainer in trainers))

    @jax.jit
    @jax.vmap
    def run(state, key):
        sizes = {"num_updates": num_updates, "num_steps": num_steps, "num_envs": num_envs}
        return train_in_environment(first, state, CartPole(), key, first.config, **sizes)[2]

    seen = run(states, jax.random.split(jax.random.key(1), len(trainers)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))
    return [episode_returns(*pair) for pair in zip(seen["rewards"], seen["dones"], strict=True)]


def test_ppo_learns_within_seconds():
    # 40,960 steps of eight environments at ten times the learning rate; a random policy balances for about 22 steps.
    num_updates = 40
    (returns,) = train([make_trainer(num_updates, 2.5e-3, seed=0)], num_updates, num_steps=128, num_envs=8)
    assert returns[:50].mean() < 60
    assert returns[-50:].mean() > 150


@pytest.mark.slow
def test_ppo_solves_cartpole_with_every_seed():
    # 499,712 steps; 475 over 100 episodes is what CartPole-v1 calls solved.
    num_updates = 976
    runs = train([make_trainer(num_updates, 2.5e-4, seed) for seed in range(5)], num_updates, 128, 4)
    best = [np.convolve(returns, np.full(100, 0.01), "valid").max() for returns in runs]
    final = [returns[-100:].mean() for returns in runs]
    assert min(best) >= 475, (best, final)
    assert min(final) >= 475, (best, final)  # solved, and still so at the end
