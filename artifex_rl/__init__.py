"""artifex_rl: reinforcement-learning fine-tuning of generative models, to be understood by hand.

The library is the course's other half: the curve you drag in a notebook is the function you train with.
"""

import importlib

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
from artifex_rl.rl.returns import (
    compute_discounted_returns,
    compute_gae_advantages,
    compute_group_advantages,
    compute_td_errors,
    normalize_advantages,
)

__version__ = "0.1.0"

#: Where the names live that come when asked for: most need flax.nnx, whose import takes longer than all above.
_LAZY = {
    "BoltzmannPolicy": "rl.boltzmann_policy",
    "ClippedReward": "rl.rewards",
    "CompositeReward": "rl.rewards",
    "CompressibilityReward": "rl.rewards",
    "ConstantReward": "rl.rewards",
    "DPOTrainer": "rl.dpo",
    "DiffusionPolicy": "rl.diffusion_policy",
    "DiscriminatorReward": "rl.discriminator_reward",
    "EmbeddingReward": "rl.rewards",
    "EnergyPolicy": "rl.energy_policy",
    "Evaluation": "rl.policies",
    "FlowPolicy": "rl.flow_policy",
    "GRPOTrainer": "rl.grpo",
    "GeneratorPolicy": "rl.generator_policy",
    "LatentPolicy": "rl.generator_policy",
    "MultiObjectiveReward": "rl.rewards",
    "PPOTrainer": "rl.ppo",
    "Policy": "rl.policies",
    "REINFORCETrainer": "rl.reinforce",
    "RewardFunction": "rl.rewards",
    "ScaledReward": "rl.rewards",
    "SequencePolicy": "rl.policies",
    "SequenceReward": "rl.rewards",
    "Sweep": "sweeps",
    "ThresholdReward": "rl.rewards",
    "Trainer": "trainer",
    "as_policy": "rl.policies",
    "pretrained_digits": "pretrained",
    "pretrained_flow": "pretrained",
    "pretrained_generator": "pretrained",
    "pretrained_latents": "pretrained",
    "sweep": "sweeps",
}

__all__ = [
    "BoltzmannPolicy",
    "Categorical",
    "ClippedReward",
    "CompositeReward",
    "CompressibilityReward",
    "ConstantReward",
    "DPOConfig",
    "DPOTrainer",
    "DiagonalGaussian",
    "DiffusionPolicy",
    "DiscriminatorReward",
    "EmbeddingReward",
    "EnergyPolicy",
    "Evaluation",
    "FlowPolicy",
    "GRPOConfig",
    "GRPOTrainer",
    "GeneratorPolicy",
    "LatentPolicy",
    "MultiObjectiveReward",
    "PPOConfig",
    "PPOTrainer",
    "Policy",
    "REINFORCEConfig",
    "REINFORCETrainer",
    "RewardFunction",
    "ScaledReward",
    "SequencePolicy",
    "SequenceReward",
    "Sweep",
    "ThresholdReward",
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
    "pretrained_digits",
    "pretrained_flow",
    "pretrained_generator",
    "pretrained_latents",
    "sweep",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
