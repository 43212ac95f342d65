"""Explorer of a flow's noise: the ODE beside SDEs of the same marginals, and what the steps' noise is needed for."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from artifex_rl.generative.flow import flow_step
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import check_shape, read_floats

#: Steps at most, particles in all, and those whose paths are drawn.
MOST_STEPS, PARTICLES, PATHS = 20, 320, 10
#: Where the densities are drawn, and the width of the kernel that draws them.
HEIGHTS, KERNEL = np.linspace(-3, 3, 61).astype(np.float32), 0.12
#: Limits of the noise and of the price of a step, as they are drawn.
MOST_STD, PRICES = 2.1, (1e-2, 1e3)


class FlowNoiseExplorer(Explorer):
    """Paths of a flow from noise to data: certain ones, and noisy ones that are spread alike at every time.

    The data is a mixture of Gaussians on a line, so velocities and densities are exact. Left: paths from the same
    starts by the ODE and by the SDE, both by T Euler steps of `flow_step`; and beside them, on the same axis, how 320
    paths of each end, and how the data lies. Right: the standard deviation of each step, and its price: the KL in
    nats between two policies whose velocities differ by 1 there, which is what log-probabilities are made of. At
    a = 0 the steps are certain: there is no density, and any difference has an infinite price. With the score dropped
    the noise stays what it is, and nothing takes it back: the marginals are no longer the flow's.

    Args:
        means: `(K,)`, 1 to 6 Gaussians' means, in [−2, 2]. Default: three.
        weights: `(K,)`, positive; they are made to add up to 1. Default for given means: equal.
        std: of each Gaussian, in [0.02, 1].

    Raises:
        ValueError: a shape or a number is not as said above.

    Reference: Liu et al. (2025), *Flow-GRPO*, arXiv:2505.05470, section 4.
    """

    def __init__(self, means: ArrayLike | None = None, weights: ArrayLike | None = None, std: float = 0.15):
        if means is None:
            means, weights = (-1.4, 0.2, 1.3), (0.3, 0.2, 0.5) if weights is None else weights
        mixture = _read_mixture(means, weights, std)
        start = jax.scipy.special.ndtri((jnp.arange(PARTICLES, dtype=jnp.float32) + 0.5) / PARTICLES)
        noise = jax.random.normal(jax.random.key(1), (MOST_STEPS, PARTICLES))
        super().__init__(
            [
                Control("noise_level", 0, 2, 0.05, 0.7, label="a  noise", help="Noise level of the SDE; 0: the ODE"),
                Control("steps", 1, MOST_STEPS, 1, 10, label="T  steps", help="Steps from noise to data"),
                Control("score", 0, 1, 1, 1, label="score", help="In the drift", names=("dropped", "kept")),
            ],
            jax.tree_util.Partial(_curves, mixture, start, noise),
            lambda curves, limits: _figure(curves, mixture),
            _describe,
            "Drag a: the paths scatter. Where they end does not. Or does it?",
        )


def mixture_velocity(
    x: Float[Array, "B"], time: ArrayLike, means: Float[Array, "K"], weights: Float[Array, "K"], std: ArrayLike
) -> Float[Array, "B"]:
    """E[data − noise | x_t] for data from a mixture of Gaussians of one standard deviation: the exact velocity."""
    variance = time**2 * std**2 + (1 - time) ** 2
    gaps = x[:, None] - time * means[None]
    shares = jax.nn.softmax(jnp.log(weights)[None] - gaps**2 / (2 * variance), axis=1)
    slope = (time * std**2 - (1 - time)) / variance
    return jnp.sum(shares * (means[None] + slope * gaps), axis=1)


def step_price(time: ArrayLike, duration: ArrayLike, noise_level: ArrayLike) -> Float[Array, ""]:
    """KL of the Gaussians of a step, in nats, for velocities that differ by 1: how far `flow_step` then goes apart,
    squared, over twice its variance. Infinite where the step is certain."""
    here, std = flow_step(jnp.zeros(()), jnp.zeros(()), time, duration, noise_level)
    there, _ = flow_step(jnp.zeros(()), jnp.ones(()), time, duration, noise_level)
    return (there - here) ** 2 / (2 * std**2)


def _curves(mixture, start, noise, noise_level, steps, score):
    number = jnp.arange(MOST_STEPS, dtype=jnp.float32)
    times = jnp.minimum(number / steps, 1.0)
    durations = jnp.where(number < steps, 1 / steps, 0.0)

    def walk(level):
        def step(x, now):
            time, duration, drawn = now
            velocity = mixture_velocity(x, time, *mixture)
            mean, std = flow_step(x, velocity, time, jnp.maximum(duration, 1e-6), level)
            mean = jnp.where(score > 0.5, mean, x + duration * velocity)
            x = jnp.where(duration > 0, mean + std * drawn, x)
            return x, x

        return jnp.concatenate([start[None], jax.lax.scan(step, start, (times, durations, noise))[1]])

    sde, ode = walk(noise_level), walk(0.0)
    taken = times[jnp.minimum(number, steps - 1).astype(int)]  # of steps that are not taken: the last one's
    stds = jax.vmap(lambda t: flow_step(jnp.zeros(()), jnp.zeros(()), t, 1 / steps, noise_level)[1])(taken)
    prices = jax.vmap(lambda t: step_price(t, 1 / steps, noise_level))(taken)
    return {
        "sde": _paths(times, sde),
        "ode": _paths(times, ode),
        "end_sde": jnp.stack([_density(sde[-1]), HEIGHTS], axis=1),
        "end_ode": jnp.stack([_density(ode[-1]), HEIGHTS], axis=1),
        "std": jnp.stack([taken, stds], axis=1),
        "price": jnp.stack([taken, jnp.clip(prices, *PRICES)], axis=1),
    }


def _paths(times, x):
    """Paths from starts all over the noise as one line with gaps, `(PATHS · (T + 2), 2)`."""
    x = x[:, PARTICLES // PATHS // 2 :: PARTICLES // PATHS]
    times = jnp.concatenate([times, jnp.ones(1)])
    points = jnp.stack([jnp.broadcast_to(times[:, None], (len(times), PATHS)), x], axis=2)
    gap = jnp.full((1, PATHS, 2), jnp.nan)
    return jnp.moveaxis(jnp.concatenate([points, gap]), 1, 0).reshape(-1, 2)


def _density(x):
    kernels = jnp.exp(-((jnp.asarray(HEIGHTS)[:, None] - x[None]) ** 2) / (2 * KERNEL**2))
    return jnp.mean(kernels, axis=1) / (KERNEL * math.sqrt(2 * math.pi))


def _figure(curves, mixture):
    means, weights, std = (np.asarray(part) for part in mixture)
    fig = Figure(figsize=(9.2, 4.0))
    grid = fig.add_gridspec(2, 3, width_ratios=(2.6, 1, 1.9))
    paths, ends = fig.add_subplot(grid[:, 0]), fig.add_subplot(grid[:, 1])
    noise, price = fig.add_subplot(grid[0, 2]), fig.add_subplot(grid[1, 2])

    paths.plot(*curves["sde"].T, gid="sde", label="SDE", **{**INK["orange"], "linestyle": "-", "lw": 1})
    paths.plot(*curves["ode"].T, gid="ode", label="ODE", **{**INK["blue"], "linestyle": (0, (4, 2)), "lw": 1.4})
    paths.set(xlim=(0, 1), ylim=(-3, 3), xlabel="t, from noise to data", title="Paths from the same noise")
    paths.legend(loc="lower left", ncols=2)

    width = np.hypot(std, KERNEL)
    bells = np.exp(-((HEIGHTS[:, None] - means) ** 2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
    exact = bells @ weights
    ends.fill_betweenx(HEIGHTS, exact, color="#88888855", lw=0, label="data")
    ends.plot(*curves["end_ode"].T, gid="end_ode", label="ODE", **INK["blue"])
    ends.plot(*curves["end_sde"].T, gid="end_sde", label="SDE", **INK["orange"])
    ends.set(xlim=(0, 1.35 * exact.max()), ylim=(-3, 3), xticks=[], title="How they end")
    ends.tick_params(labelleft=False)
    ends.legend(loc="lower right", fontsize=9.5)

    dots = {"marker": "o", "ms": 4}
    noise.plot(*curves["std"].T, gid="std", **dots, **INK["orange"])
    noise.set(xlim=(-0.02, 1), ylim=(-0.05, MOST_STD), title="Standard deviation of a step")
    noise.tick_params(labelbottom=False)
    price.plot(*curves["price"].T, gid="price", **dots, **INK["green"])
    price.set(xlim=(-0.02, 1), ylim=(PRICES[0] / 1.5, PRICES[1] * 1.5), yscale="log", xlabel="t")
    price.set_title("Its price in nats")
    return fig


def _describe(knobs, curves):
    sde, ode = (_spread(curves[name]) for name in ("end_sde", "end_ode"))
    kept = "" if knobs["score"] > 0.5 else ", the score dropped,"
    ends = f"With a = {knobs['noise_level']:.2f}{kept} and T = {knobs['steps']:.0f}"
    if knobs["noise_level"] == 0:
        return f"{ends} the SDE is the ODE, and ends with a deviation of {ode:.2f}: no step has a density."
    first = curves["std"][0, 1]
    total = curves["price"][: int(knobs["steps"]), 1].sum()
    return (
        f"{ends} the SDE ends with a deviation of {sde:.2f}, and the ODE with {ode:.2f}; the first step has a noise "
        f"of {first:.2f}, and velocities that differ by 1 cost {total:.3g} nats over all steps."
    )


def _spread(end):
    """Standard deviation of a density that is drawn, less that of its kernel; what lies outside is not seen."""
    density, x = end[:, 0] / end[:, 0].sum(), end[:, 1]
    mean = density @ x
    return math.sqrt(max(float(density @ (x - mean) ** 2) - KERNEL**2, 0.0))


def _read_mixture(means, weights, std):
    """Means, weights that add up to 1 and the deviation, as float32 arrays."""
    (means,) = read_floats(means=means)
    if means.ndim != 1 or not 1 <= len(means) <= 6:
        raise ValueError(f"means: got shape {means.shape}, needs (K,) with 1 to 6 numbers")
    (weights,) = read_floats(weights=jnp.ones_like(means) if weights is None else weights)
    check_shape("weights", weights, means.shape)
    for name, array in (("means", means), ("weights", weights)):
        check_finite(name, array)
    if jnp.abs(means).max() > 2:
        raise ValueError(f"means: got {float(means[jnp.abs(means).argmax()]):g}, needs numbers from -2 to 2")
    if not (weights > 0).all():
        raise ValueError(f"weights: got {float(weights.min()):g}, needs positive numbers")
    if isinstance(std, bool) or not hasattr(std, "__float__") or not 0.02 <= float(std) <= 1:
        raise ValueError(f"std: got {std!r}, needs a number from 0.02 to 1")
    return means.astype(jnp.float32), (weights / weights.sum()).astype(jnp.float32), jnp.float32(std)
