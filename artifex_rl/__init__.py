"""artifex_rl: reinforcement-learning fine-tuning of generative models, to be understood by hand.

The library is the course's other half: the curve you drag in a notebook is the function you train with.
"""

from artifex_rl.configs import DPOConfig, GRPOConfig, PPOConfig, REINFORCEConfig
from artifex_rl.rl.batches import one_step_batch
from artifex_rl.rl.distributions import Categorical, DiagonalGaussian
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
from artifex_rl.rl.policies import Evaluation, Policy, SequencePolicy, as_policy
from artifex_rl.rl.reinforce import REINFORCETrainer
from artifex_rl.rl.returns import (
    compute_discounted_returns,
    compute_gae_advantages,
    compute_group_advantages,
    compute_td_errors,
    normalize_advantages,
)
from artifex_rl.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Categorical",
    "DPOConfig",
    "DiagonalGaussian",
    "Evaluation",
    "GRPOConfig",
    "PPOConfig",
    "Policy",
    "REINFORCEConfig",
    "REINFORCETrainer",
    "SequencePolicy",
    "Trainer",
    "as_policy",
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
    "one_step_batch",
]
