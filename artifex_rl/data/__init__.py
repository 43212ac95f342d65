"""What ships with the package: a real CartPole rollout, and the policy that made it."""

from artifex_rl.data.cartpole import CartPoleRollout, load_cartpole_rollout
from artifex_rl.data.demonstration import demonstration_policy

__all__ = ["CartPoleRollout", "demonstration_policy", "load_cartpole_rollout"]
