"""Make the built-in CartPole rollout: `python -m artifex_rl.data.make_cartpole_rollout`."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from artifex_rl.data.cartpole import FILE_NAME, CartPoleRollout
from artifex_rl.data.demonstration import demonstration_policy
from artifex_rl.envs import CartPole, rollout
from artifex_rl.models import fit_critic
from artifex_rl.rl.returns import compute_discounted_returns

GAMMA = 0.99
NUM_STEPS = 200
# Chosen by eye among many: four episodes of clearly different lengths, the first of them an early fall. No action
# was a close call, so that a processor that rounds otherwise takes the same ones.
SEED = 1321


def make_cartpole_rollout() -> CartPoleRollout:
    """Roll the demonstration policy out and ask a critic, fitted on other episodes, what each state is worth."""
    critic = fit_demonstration_critic(jax.random.key(0))
    steps = jax.tree.map(np.asarray, rollout(CartPole(), demonstration_policy, jax.random.key(SEED), NUM_STEPS))
    return CartPoleRollout(
        observations=steps.observations,
        actions=steps.actions,
        rewards=steps.rewards,
        values=np.asarray(critic(steps.observations)),
        next_values=np.asarray(critic(steps.next_observations)),
        dones=steps.dones,
        truncations=steps.truncations,
    )


def fit_demonstration_critic(key):
    """A critic for the demonstration policy, on the complete returns of some 350 episodes."""
    rollout_key, fit_key = jax.random.split(key)
    steps = rollout(CartPole(), demonstration_policy, rollout_key, num_steps=512, num_envs=32)
    returns = compute_discounted_returns(steps.rewards, GAMMA, steps.dones)
    # The return of an episode that the rollout cut off is not known.
    complete = np.cumsum(np.asarray(steps.dones)[::-1], axis=0)[::-1] > 0
    return fit_critic(np.asarray(steps.observations)[complete], np.asarray(returns)[complete], fit_key)


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name(FILE_NAME), **make_cartpole_rollout()._asdict())
