"""Flows: velocities that carry noise to data, learnt by regression; and the SDE that spreads as the ODE does.

Time runs from 0, noise, to 1, data: x_t = (1 − t) · noise + t · data, and the velocity of that line is
data − noise. (Rectified flow and Flow-GRPO count the other way in places; formulas here are turned to match.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.diffusion.process import per_row


def interpolate(noise: Float[Array, "*B"], data: Float[Array, "*B"], time: ArrayLike) -> Float[Array, "*B"]:
    """x_t = (1 − t) noise + t data.

    Reference: Lipman et al. (2023), *Flow Matching for Generative Modeling*, arXiv:2210.02747, eq. 22, with
    σ_min = 0; Liu, Gong & Liu (2023), *Flow Straight and Fast*, arXiv:2209.03003, eq. 1.
    """
    time = jnp.asarray(time, data.dtype)
    return (1 - time) * noise + time * data


def compute_flow_loss(
    model: Callable[[Array, Array, Any], Array],
    noise: Float[Array, "B *D"],
    data: Float[Array, "B *D"],
    labels: Any,
    key: Array,
) -> Float[Array, ""]:
    """E ‖v(x_t, t) − (data − noise)‖² / D over t drawn evenly from [0, 1].

    The pairs decide which flow it is: independent ones make flow matching, those of optimal transport OT-CFM, and
    those of a flow itself *reflow*.

    Args:
        model: x_t `(B, *D)`, times `(B,)` and labels to velocities `(B, *D)`.
        noise: row i of it is to become row i of the data.
        data: a batch.
        labels: passed on.
        key: a JAX random key for the times.

    Reference: Lipman et al. (2023), eq. 23; Tong et al. (2024), arXiv:2302.00482, eq. 10.
    """
    times = jax.random.uniform(key, data.shape[:1], data.dtype)
    x = interpolate(noise, data, per_row(times, data))
    return jnp.mean((model(x, times, labels) - (data - noise)) ** 2)


def compute_straightness(path: Float[Array, "B N+1 *D"]) -> Float[Array, ""]:
    """S = ∫ E ‖dx_t/dt − (x₁ − x₀)‖² dt along trajectories, summed over D: 0 if all are straight, at even speed.

    A flow with S = 0 is followed exactly by a single step of Euler's method. Slopes are those of the N pieces of
    each trajectory, whose times are evenly spread from 0 to 1.

    Reference: Liu, Gong & Liu (2023), arXiv:2209.03003, section 2.2.
    """
    num_pieces = path.shape[1] - 1
    bends = num_pieces * jnp.diff(path, axis=1) - (path[:, -1:] - path[:, :1])
    return jnp.sum(bends**2) / (len(path) * num_pieces)


def compute_flow_score(velocity: Float[Array, "*B"], x: Float[Array, "*B"], time: ArrayLike) -> Float[Array, "*B"]:
    """∇ log p_t(x) = −(x − t v) / (1 − t): what the velocity says of the density, for t in [0, 1).

    x − t v is the noise that is expected in x, and a score is that over minus its standard deviation, 1 − t.

    Reference: Liu et al. (2025), *Flow-GRPO*, arXiv:2505.05470, in the derivation of its SDE.
    """
    time = jnp.asarray(time, x.dtype)
    return -(x - time * velocity) / (1 - time)


def flow_step(
    x: Float[Array, "*B"],
    velocity: Float[Array, "*B"],
    time: ArrayLike,
    duration: ArrayLike,
    noise_level: ArrayLike = 0.7,
    min_std: ArrayLike = 0.0,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Mean and standard deviation of a step of the SDE whose marginals are those of the flow, by Euler–Maruyama.

        dx = [v + ½ g² ∇ log p_t(x)] dt + g dW,      g = a √((1 − t) / t)

    The score takes back what the noise spreads. With it the drift is v − ½ a² (x − t v) / t, which is finite up to
    the data. At the noise itself, where g has no bound, t in it is the duration of the step.

    Args:
        x: x_t, of any shape.
        velocity: v(x_t, t), of the same shape.
        time: t in [0, 1), a number or of a shape that broadcasts against `x`.
        duration: of the step, in (0, 1 − t], likewise.
        noise_level: a ≥ 0; 0 is the ODE, by Euler's method.
        min_std: floor of the standard deviation, so that every step has a density. Noise that it adds stays.

    Returns:
        The mean, of the shape of `x`, and the standard deviation, of the shape of the times.

    Reference: Liu et al. (2025), *Flow-GRPO*, arXiv:2505.05470, section 4; Song et al. (2021), arXiv:2011.13456,
    section 4.3, for SDEs and ODEs of the same marginals.
    """
    time, duration, noise_level, min_std = (
        jnp.asarray(number, x.dtype) for number in (time, duration, noise_level, min_std)
    )
    since = jnp.maximum(time, duration)
    drift = velocity - noise_level**2 / 2 * (x - time * velocity) / since  # ½ g² · score, where 1 − t cancels
    std = noise_level * jnp.sqrt((1 - time) / since * duration)
    return x + duration * drift, jnp.maximum(std, min_std)
