"""artifex_rl: reinforcement-learning fine-tuning of generative models, to be understood by hand.

The library is the course's other half: the curve you drag in a notebook is the function you train with.
"""

from artifex_rl.rl.losses import (
    compute_clipped_surrogate,
    compute_clipped_surrogate_loss,
    compute_dpo_loss,
    compute_kl_divergence,
    compute_policy_entropy,
    compute_preference_loss,
    compute_simpo_loss,
    compute_value_loss,
    estimate_kl,
)
from artifex_rl.rl.returns import (
    compute_discounted_returns,
    compute_gae_advantages,
    compute_group_advantages,
    compute_td_errors,
    normalize_advantages,
)

__version__ = "0.1.0"

__all__ = [
    "compute_clipped_surrogate",
    "compute_clipped_surrogate_loss",
    "compute_discounted_returns",
    "compute_dpo_loss",
    "compute_gae_advantages",
    "compute_group_advantages",
    "compute_kl_divergence",
    "compute_policy_entropy",
    "compute_preference_loss",
    "compute_simpo_loss",
    "compute_td_errors",
    "compute_value_loss",
    "estimate_kl",
    "normalize_advantages",
]
