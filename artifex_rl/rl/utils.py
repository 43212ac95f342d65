"""The shared functions of the RL trainers under the names of the guide; they live in `returns` and `losses`."""

from artifex_rl.rl.losses import compute_clipped_surrogate_loss, compute_kl_divergence, compute_policy_entropy
from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages, normalize_advantages

__all__ = [
    "compute_clipped_surrogate_loss",
    "compute_discounted_returns",
    "compute_gae_advantages",
    "compute_kl_divergence",
    "compute_policy_entropy",
    "normalize_advantages",
]
