"""What a network may be asked for: the data, the noise, a mixture of them, or EDM's; and what each makes of a loss.

All are the same guess in other words: x̂₀ = a x_t + b · output, with a and b known at each noise level. So any one
gives the others exactly, and one loss can be written in terms of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.diffusion.edm import EDMSchedule, preconditioning
from artifex_rl.diffusion.process import add_noise, per_row
from artifex_rl.diffusion.schedules import NoiseSchedule

#: The names of predictions.
PREDICTIONS = ("x0", "noise", "v", "edm")


def prediction_coefficients(prediction: str, alpha_bar: ArrayLike, data_std: ArrayLike = 0.5) -> tuple[Array, Array]:
    """a and b of x̂₀ = a x_t + b · output:

    - "x0": 0 and 1.
    - "noise", ε: 1/√ᾱ and −√(1 − ᾱ)/√ᾱ.
    - "v" = √ᾱ ε − √(1 − ᾱ) x₀: √ᾱ and −√(1 − ᾱ).
    - "edm": c_skip/√ᾱ and c_out, see `preconditioning`. With `data_std` 1 it is v with the other sign.

    Args:
        prediction: one of those names.
        alpha_bar: ᾱ in (0, 1).
        data_std: σ_d > 0; counts for "edm" alone.

    Raises:
        ValueError: `prediction` has no such name.

    Reference: Salimans & Ho (2022), *Progressive Distillation*, arXiv:2202.00512, section 4.
    """
    alpha_bar = jnp.asarray(alpha_bar)
    signal, noise = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    if prediction == "x0":
        return jnp.zeros_like(signal), jnp.ones_like(signal)
    if prediction == "noise":
        return 1 / signal, -noise / signal
    if prediction == "v":
        return signal, -noise
    if prediction == "edm":
        c_skip, c_out, *_ = preconditioning(noise / signal, data_std)
        return c_skip / signal, c_out
    raise ValueError(f"prediction: got {prediction!r}, needs {', '.join(map(repr, PREDICTIONS))}")


def convert_prediction(
    output: Float[Array, "*B"],
    x: Float[Array, "*B"],
    alpha_bar: ArrayLike,
    source: str,
    target: str,
    data_std: ArrayLike = 0.5,
) -> Float[Array, "*B"]:
    """A prediction of one kind as another: the same guess of x₀.

    Args:
        output: of the kind `source`.
        x: x_t, of the same shape.
        alpha_bar: ᾱ_t in (0, 1), a number or of a shape that broadcasts against `x`.
        source: its name; see `prediction_coefficients`.
        target: the name of what is wanted.
        data_std: σ_d, for "edm".

    Raises:
        ValueError: there is no prediction of that name.
    """
    if source == target:
        return output
    alpha_bar = jnp.asarray(alpha_bar, x.dtype)
    (skip, scale), (skip_to, scale_to) = (
        prediction_coefficients(name, alpha_bar, data_std) for name in (source, target)
    )
    x0 = output if source == "x0" else skip * x + scale * output
    return x0 if target == "x0" else (x0 - skip_to * x) / scale_to


def min_snr_weight(
    prediction: str, alpha_bar: ArrayLike, gamma: ArrayLike, data_std: ArrayLike = 0.5
) -> Float[Array, "*B"]:
    """Weight of the squared error of an output: min(SNR, γ) b², with SNR = ᾱ/(1 − ᾱ), which is min(SNR, γ) on x̂₀'s.

    That is min(SNR, γ) for "x0", min(SNR, γ)/SNR for "noise" and min(SNR, γ)/(SNR + 1) for "v": whatever the network
    is asked for, it is the same loss. A network that learns all levels at once is no longer ruled by the easiest.

    Args:
        prediction: what is asked for; see `prediction_coefficients`.
        alpha_bar: ᾱ in (0, 1).
        gamma: γ > 0; 5 in the paper.
        data_std: σ_d, for "edm".

    Reference: Hang et al. (2023), *Efficient Diffusion Training via Min-SNR Weighting Strategy*, arXiv:2303.09556.
    """
    alpha_bar = jnp.asarray(alpha_bar)
    _, scale = prediction_coefficients(prediction, alpha_bar, data_std)
    return jnp.minimum(alpha_bar / (1 - alpha_bar), jnp.asarray(gamma, alpha_bar.dtype)) * scale**2


def ask(
    model: Callable[[Array, Array, Any], Array],
    x: Float[Array, "B *D"],
    alpha_bar: Float[Array, "B ..."],
    times: Float[Array, "B"],
    labels: Any,
    prediction: str,
    data_std: ArrayLike = 0.5,
) -> Float[Array, "B *D"]:
    """The output of a network, told x_t and the time; for "edm" c_in y and c_noise in their place."""
    if prediction == "edm":
        *_, c_in, c_noise = preconditioning(jnp.sqrt((1 - alpha_bar) / alpha_bar), data_std)
        x, times = x * c_in / jnp.sqrt(alpha_bar), c_noise.reshape(-1)
    return model(x, times, labels)


def predict_x0(
    model: Callable[[Array, Array, Any], Array],
    x: Float[Array, "B *D"],
    times: Float[Array, "B"],
    labels: Any,
    schedule: NoiseSchedule | EDMSchedule,
    prediction: str = "x0",
    data_std: ArrayLike = 0.5,
) -> Float[Array, "B *D"]:
    """x̂₀ of a network that is asked for any prediction.

    Args:
        model: x_t `(B, *D)`, times `(B,)` and labels to its output `(B, *D)`.
        x: x_t.
        times: those of `schedule`.
        labels: passed on.
        schedule: says which noise level a time is.
        prediction: what the output is.
        data_std: σ_d, for "edm".
    """
    if prediction == "x0":
        return model(x, times, labels)
    alpha_bar = per_row(schedule.alpha_bar_at(times), x)
    output = ask(model, x, alpha_bar, times, labels, prediction, data_std)
    return convert_prediction(output, x, alpha_bar, prediction, "x0", data_std)


def compute_diffusion_loss(
    model: Callable[[Array, Array, Any], Array],
    x0: Float[Array, "B *D"],
    labels: Any,
    schedule: NoiseSchedule | EDMSchedule,
    key: Array,
    prediction: str = "x0",
    min_snr_gamma: ArrayLike | None = None,
    data_std: ArrayLike = 0.5,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """E w ‖output − what it should be‖² / D over noise levels as the schedule draws them, and over noise.

    Args:
        model: x_t `(B, *D)`, times `(B,)` and labels to its output `(B, *D)`.
        x0: a batch of data.
        labels: passed on.
        schedule: the noise levels.
        key: a JAX random key for levels and noise.
        prediction: what the output should be; see `prediction_coefficients`.
        min_snr_gamma: γ of `min_snr_weight`. None: w = 1; for "edm" that is the paper's weight.
        data_std: σ_d, for "edm".

    Returns:
        The loss, and E ‖x̂₀ − x₀‖² / D, which can be compared between predictions.

    Reference: Ho et al. (2020), section 3.2 and eq. 14, for "noise"; Karras et al. (2022), eq. 8, for "edm".
    """
    time_key, noise_key = jax.random.split(key)
    alpha_bar, times = schedule.draw(time_key, len(x0), x0.dtype)
    alpha_bar = per_row(alpha_bar, x0)
    x = add_noise(x0, jax.random.normal(noise_key, x0.shape, x0.dtype), alpha_bar)
    output = ask(model, x, alpha_bar, times, labels, prediction, data_std)
    errors = (output - convert_prediction(x0, x, alpha_bar, "x0", prediction, data_std)) ** 2
    _, scale = prediction_coefficients(prediction, alpha_bar, data_std)
    weight = 1.0 if min_snr_gamma is None else min_snr_weight(prediction, alpha_bar, min_snr_gamma, data_std)
    return jnp.mean(weight * errors), jnp.mean(scale**2 * errors)


def compute_x0_loss(
    denoise: Callable[[Array, Array, Any], Array],
    x0: Float[Array, "B *D"],
    labels: Any,
    schedule: NoiseSchedule,
    key: Array,
) -> Float[Array, ""]:
    """E ‖x̂₀(x_t, t) − x₀‖² / D over all noise levels alike: `compute_diffusion_loss` of a model that guesses x₀.

    In terms of the noise that is a weight of (1 − ᾱ_t) / ᾱ_t, the inverse of the signal-to-noise ratio.
    """
    return compute_diffusion_loss(denoise, x0, labels, schedule, key)[0]
