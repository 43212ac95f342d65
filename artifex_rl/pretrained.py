"""Policies that are ready to be fine-tuned: networks whose weights ship with the package."""

from __future__ import annotations

from flax import nnx

from artifex_rl.data.digits_denoiser import SCHEDULE, load_digits_denoiser
from artifex_rl.data.digits_flow import load_digits_flow
from artifex_rl.data.digits_gan import load_digits_gan
from artifex_rl.rl.diffusion_policy import DiffusionPolicy
from artifex_rl.rl.flow_policy import FlowPolicy
from artifex_rl.rl.generator_policy import GeneratorPolicy, LatentPolicy


def pretrained_digits(
    num_steps: int = 20,
    *,
    eta: float = 1.0,
    min_std: float = 0.1,
    guidance: float = 1.0,
    critic: nnx.Module | None = None,
) -> DiffusionPolicy:
    """A diffusion model of 8 × 8 digits in [−1, 1]; observations are labels, 0 … 9, or 10 for any digit.

    The independent judge of `artifex_rl.data.digits` recognises at least 97 % of what it draws. Every call returns a
    new policy with the pretrained weights: a second one serves as the reference of the first.

    Args:
        num_steps: T of a trajectory, 1 … 20; it was trained with 20.
        eta: how noisy the steps are, in (0, 1].
        min_std: floor of their standard deviation, > 0. A pixel's full range is 2.
        guidance: weight of the label; 1 is the model as it was trained.
        critic: for PPO; see `DiffusionPolicy`.

    Raises:
        ValueError: an argument is out of its range.
    """
    return DiffusionPolicy(
        load_digits_denoiser(),
        SCHEDULE.respace(num_steps),
        (8, 8),
        eta=eta,
        min_std=min_std,
        guidance=guidance,
        critic=critic,
    )


def pretrained_flow(
    num_steps: int = 10,
    *,
    noise_level: float = 0.7,
    min_std: float = 0.1,
    guidance: float = 1.0,
    critic: nnx.Module | None = None,
) -> FlowPolicy:
    """A flow of 8 × 8 digits in [−1, 1]; observations are labels, 0 … 9, or 10 for any digit.

    The independent judge of `artifex_rl.data.digits` recognises at least 94 % of what its ODE draws, and 99 % with a
    guidance of 2. Every call returns a new policy with the pretrained weights: a second one serves as the reference
    of the first.

    Args:
        num_steps: T ≥ 1, of a trajectory. The velocities are those of all times: any number will do.
        noise_level: how noisy the steps are, > 0.
        min_std: floor of their standard deviation, > 0. A pixel's full range is 2.
        guidance: weight of the label; 1 is the model as it was trained.
        critic: for PPO; see `FlowPolicy`.

    Raises:
        ValueError: an argument is out of its range.
    """
    return FlowPolicy(
        load_digits_flow(),
        num_steps,
        (8, 8),
        noise_level=noise_level,
        min_std=min_std,
        guidance=guidance,
        critic=critic,
    )


def pretrained_generator(
    std: float = 0.1, *, critic: nnx.Module | None = None, rngs: nnx.Rngs | None = None
) -> GeneratorPolicy:
    """A GAN's generator of 8 × 8 digits in [−1, 1] with a Gaussian around each; observations are noise `(B, 16)`.

    Four of five digits that it makes three classifiers read alike, and it makes all ten alike often. The
    discriminator that it played against is the second of `artifex_rl.data.load_digits_gan`.

    Args:
        std: standard deviation σ > 0 of a pixel around G(z). A pixel's full range is 2.
        critic: for PPO; see `GeneratorPolicy`.
        rngs: source of the draws of `policy(noise)`.

    Raises:
        ValueError: `std` is out of its range.
    """
    return GeneratorPolicy(load_digits_gan()[0], std, critic=critic, rngs=rngs)


def pretrained_latents(num_labels: int = 1, *, critic: nnx.Module | None = None) -> LatentPolicy:
    """A Gaussian over the noise of the same generator, which stays as it is; observations are labels `(B,)`.

    It begins as N(0, I) for every label. The generator was told no classes: which noise makes which digit is left to
    be learnt.

    Args:
        num_labels: K ≥ 1; observations are 0 … K − 1.
        critic: for PPO; see `LatentPolicy`.

    Raises:
        ValueError: `num_labels` is less than 1.
    """
    return LatentPolicy(load_digits_gan()[0], num_labels, critic=critic)
