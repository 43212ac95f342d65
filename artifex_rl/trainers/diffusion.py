"""Diffusion: learn to take noise out of data, and so to make data out of noise."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.configs import choice, config, number
from artifex_rl.diffusion import (
    PREDICTIONS,
    EDMSchedule,
    NoiseSchedule,
    compute_diffusion_loss,
    cosine_schedule,
    denoise_trajectory,
    follow_probability_flow,
    predict_x0,
)
from artifex_rl.trainer import Metrics
from artifex_rl.trainers.guided import GuidedTrainer

SAMPLERS = ("ddpm", "ddim", "heun")


@config
class DiffusionConfig:
    """Settings of `DiffusionTrainer`.

    Args:
        prediction: what the network is asked for: "x0", "noise", "v", or "edm", see `prediction_coefficients`. With
            few steps and a small network "x0" learns fastest.
        min_snr_gamma: γ of min-SNR weighting, > 0, 5 in its paper; see `min_snr_weight`. None: every noise level
            weighs 1 on the network's own error.
        ema_decay: how slowly the average of the weights follows, in [0, 1); 0 is no average.
        label_dropout: share of the labels that are left out in training, in [0, 1]; guidance needs some.
        data_std: standard deviation of the data, > 0; counts for "edm".

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    prediction: str = choice(*PREDICTIONS)
    min_snr_gamma: float | None = number(None, above=0)
    ema_decay: float = number(0.999, low=0, below=1)
    label_dropout: float = number(0.1, low=0, high=1)
    data_std: float = number(0.5, above=0)


class DiffusionTrainer(GuidedTrainer):
    """Denoising diffusion: minimises E w ‖network(x_t, t, label) − target‖² / D, with x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε.

    The target is `prediction` of x₀ and ε; w is 1, or min-SNR's. Noise levels come from the schedule. EDM (Karras et
    al., 2022) is `DiffusionConfig(prediction="edm")` with `schedule=EDMSchedule()`: its preconditioning, weights and
    levels; its sampler is "heun".

    The model is called `model(x, times, labels)` with times in [0, 1], 0 for data and 1 for noise (c_noise for
    "edm"); see `GuidedTrainer`. A `DiffusionPolicy` is such a model as well, to be trained here and then by reward.

    Batches hold "data" `(B, ...)`, best scaled to [−1, 1], and "labels" `(B,)` for a model that is told a class.

    Args:
        schedule: the noise levels; fixed. None: the model's `schedule`, or else `cosine_schedule(20)`.
        shape: of one sample. None: the model's `shape`.

    Metrics: "loss"; "x0_error", E ‖x̂₀ − x₀‖² / D, which can be compared between predictions; "grad_norm".

    Raises:
        ValueError: the model has a `prediction`, as a policy has, and it is not the config's.

    Reference: Ho, Jain & Abbeel (2020), arXiv:2006.11239, algorithm 1; Ho & Salimans (2022), arXiv:2207.12598,
    algorithm 1, for labels.
    """

    config_class = DiffusionConfig

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: DiffusionConfig | None = None,
        *,
        schedule: NoiseSchedule | EDMSchedule | None = None,
        **options: Any,
    ):
        super().__init__(model, optimizer, config, **options)
        self.schedule = schedule or getattr(model, "schedule", None) or cosine_schedule(20)
        for name in ("prediction", "data_std") if self.config.prediction == "edm" else ("prediction",):
            mine = getattr(self.config, name)
            if getattr(model, name, mine) != mine:
                raise ValueError(f"{name}: got {mine!r}, needs the model's, {getattr(model, name)!r}")

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The loss of a batch at noise levels that are drawn for it, and its error in terms of x₀."""
        config, data = self.config, jnp.asarray(batch["data"])
        label_key, key = jax.random.split(key)
        labels = self.drop_labels(batch, label_key)
        loss, x0_error = compute_diffusion_loss(
            model, data, labels, self.schedule, key, config.prediction, config.min_snr_gamma, config.data_std
        )
        return loss, {"x0_error": x0_error}

    def sample(
        self,
        num_samples: int,
        key: Array,
        labels: Any = None,
        *,
        sampler: str = "ddpm",
        num_steps: int | None = None,
        guidance: ArrayLike = 1.0,
        eta: ArrayLike | None = None,
        clip: ArrayLike = math.inf,
    ) -> Float[Array, "B *D"]:
        """Draw from the average of the weights; compiled once for each `num_samples` and `num_steps`, and for "heun".

        Args:
            num_samples: how many.
            key: a JAX random key.
            labels: `(num_samples,)` classes, or one for all. None: any class.
            sampler: "ddpm", whose every step adds noise; "ddim", with as much of it as `eta` says; "heun", of second
                order on the probability-flow ODE, at two calls of the model a step.
            num_steps: fewer steps than the schedule's, ≥ 1. None: all of them.
            guidance: weight of the labels, finite; see `guide`. 1 asks the model once a step, others twice.
            eta: η in [0, 1] for "ddim", 0 if None; see `denoising_step`.
            clip: x̂₀ is held in [−clip, clip], > 0. A network that predicts noise needs it where little is left of
                the data.

        Raises:
            ValueError: an argument is out of its range.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler: got {sampler!r}, needs {', '.join(map(repr, SAMPLERS))}")
        if eta is not None and (sampler != "ddim" or not 0 <= eta <= 1):
            raise ValueError(f"eta: got {eta} for {sampler!r}, needs 0 to 1 for 'ddim', None for others")
        if not clip > 0:
            raise ValueError(f"clip: got {clip}, needs more than 0")
        if num_steps is not None:
            self.schedule.respace(num_steps)  # ValueError for a number that it does not have
        eta = 1.0 if sampler == "ddpm" else float(eta or 0.0)
        options = {"heun": sampler == "heun", "num_steps": num_steps, "eta": eta, "clip": float(clip)}
        return super().sample(num_samples, key, labels, guidance=guidance, **options)

    def draw(
        self,
        parts: tuple[Any, ...],
        num_samples: int,
        key: Array,
        labels: Any = None,
        *,
        heun: bool,
        num_steps: int | None,
        guidance: ArrayLike,
        twice: bool,
        eta: ArrayLike,
        clip: ArrayLike,
    ) -> Float[Array, "B *D"]:
        config = self.config
        schedule = self.schedule if num_steps is None else self.schedule.respace(num_steps)
        model = self.guide(parts, guidance, twice)

        def denoise(x, times, labels):
            x0 = predict_x0(model, x, times, labels, schedule, config.prediction, config.data_std)
            return jnp.clip(x0, -clip, clip)

        start_key, key = jax.random.split(key)
        noise = jax.random.normal(start_key, (num_samples, *self.shape))
        if heun:
            return follow_probability_flow(denoise, noise, labels, schedule)
        return denoise_trajectory(denoise, noise, labels, schedule, key, eta)[:, -1]
