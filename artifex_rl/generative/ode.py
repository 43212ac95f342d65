"""Ordinary differential equations, as samplers follow them: through given times, by Euler's or by Heun's method."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: The names of methods.
METHODS = ("euler", "heun")


def integrate(
    field: Callable[[Array, Array], Array],
    x: Float[Array, "*B"],
    times: Float[Array, "N+1"],
    method: str = "heun",
    path: bool = False,
) -> Float[Array, "*B"]:
    """Follow dx/dt = field(x, t) from x at the first of the times to the last.

    Euler's method takes the slope where it stands: its error falls with the size of the steps. Heun's averages that
    with the slope where Euler would have led, asks the field twice a step, and its error falls with the square.

    Args:
        field: x and a time, a scalar, to dx/dt, of the shape of x.
        x: where it begins.
        times: rising or falling.
        method: "euler" or "heun".
        path: return all N + 1 points, along a first axis, instead of the last.

    Raises:
        ValueError: `method` has no such name.

    Reference: Hairer, Nørsett & Wanner (1993), *Solving Ordinary Differential Equations I*, section II.1.
    """
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, needs {' or '.join(map(repr, METHODS))}")

    def step(x, now):
        here, there = now
        slope = field(x, here)
        if method == "heun":
            slope = (slope + field(x + (there - here) * slope, there)) / 2
        x = x + (there - here) * slope
        return x, x if path else None

    times = jnp.asarray(times, x.dtype)
    end, points = jax.lax.scan(step, x, (times[:-1], times[1:]))
    return jnp.concatenate([x[None], points]) if path else end
