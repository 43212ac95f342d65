"""The built-in CartPole rollout, read from the package in a few milliseconds."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np

FILE_NAME = "cartpole_rollout.npz"


class CartPoleRollout(NamedTuple):
    """One stream of experience, T steps in order of time, beside what a critic thought of it.

    The names and conventions are those of `artifex_rl.rl.returns.compute_gae_advantages`.
    """

    observations: np.ndarray  # (T, 4) float32: x in m, x_dot in m/s, theta in rad, theta_dot in rad/s
    actions: np.ndarray  # (T,) int32: 0 pushed left, 1 pushed right
    rewards: np.ndarray  # (T,) float32: 1 at every step
    values: np.ndarray  # (T,) float32: V(s_t) for gamma 0.99
    next_values: np.ndarray  # (T,) float32: V of the state that step t reached, before any reset
    dones: np.ndarray  # (T,) bool: the episode ended at t
    truncations: np.ndarray  # (T,) bool: it ended by the time limit alone


def load_cartpole_rollout() -> CartPoleRollout:
    """200 steps of `demonstration_policy` in CartPole-v1: four whole episodes, and a fifth still running.

    The values come from a small critic, fitted on other episodes of the same policy at gamma 0.99. It is sensible
    and imperfect, as critics are. The last step is not done: `next_values[-1]` says what the state after it is
    worth. Made by `python -m artifex_rl.data.make_cartpole_rollout`.

    Returns:
        A `CartPoleRollout` of fresh NumPy arrays, T = 200.
    """
    with (files("artifex_rl.data") / FILE_NAME).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return CartPoleRollout(**{name: arrays[name] for name in CartPoleRollout._fields})
