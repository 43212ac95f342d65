"""Explorer of PPO's clipped surrogate: the objective and its gradient against the probability ratio."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.rl.losses import compute_clipped_surrogate

#: Ratios π/π_old over which the curves are drawn; 201 of them put 1 on a point.
RATIOS = np.linspace(0.01, 2.01, 201).astype(np.float32)

_objective = compute_clipped_surrogate
#: Gradient with respect to log π(a|s), sample by sample: the push that the sample gives its action.
_gradient = jax.vmap(jax.grad(compute_clipped_surrogate), in_axes=(0, 0, 0, None, None))


class ClipExplorer(Explorer):
    """The clipped surrogate and its gradient for an action that was better than expected, and for one that was worse.

    Drag ε to see where the gradient stops, ε_high for DAPO's wider upper bound, and the ratio to walk along the
    curves.
    """

    def __init__(self):
        super().__init__(
            [
                Control(
                    "clip_param", 0.0, 0.6, 0.01, 0.2, label="ε  clip", help="How far the ratio may fall below 1"
                ),
                Control(
                    "clip_param_high", 0.0, 0.6, 0.01, 0.2, label="ε_high", help="How far the ratio may rise above 1"
                ),
                Control("ratio", 0.05, 1.95, 0.01, 1.1, label="ratio π/π_old", help="Where the marker stands"),
            ],
            _curves,
            _figure,
            _describe,
            "Drag ε: where does the gradient stop?",
        )


def _curves(clip_param, clip_param_high, ratio):
    log_ratios = jnp.log(RATIOS)
    curves = {}
    for name, advantage in (("better", 1.0), ("worse", -1.0)):

        def at(log_probs, advantage=advantage):
            old, advantages = jnp.zeros_like(log_probs), jnp.full_like(log_probs, advantage)
            return (
                _objective(log_probs, old, advantages, clip_param, clip_param_high),
                _gradient(log_probs, old, advantages, clip_param, clip_param_high),
            )

        curves[f"objective_{name}"], curves[f"gradient_{name}"] = at(log_ratios)
        (height,), (push,) = at(jnp.log(ratio)[None])
        curves[f"here_{name}"] = jnp.stack([jnp.stack([ratio, height]), jnp.stack([ratio, push])])
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 3.5))
    for axes, name, sign in zip(fig.subplots(1, 2), ("better", "worse"), (1, -1), strict=True):
        axes.plot(RATIOS, sign * RATIOS, label="not clipped, ρA", **INK["grey"])
        axes.plot(RATIOS, curves[f"objective_{name}"], gid=f"objective_{name}", label="objective", **INK["blue"])
        axes.plot(RATIOS, curves[f"gradient_{name}"], gid=f"gradient_{name}", label="gradient", **INK["orange"])
        axes.plot(
            *curves[f"here_{name}"].T, gid=f"here_{name}", ls="", marker="o", ms=6, color="black", label="_here"
        )
        axes.axvline(1, color="#888888", lw=0.8)
        axes.set(xlim=(0, 2), ylim=(-0.15, 2.1) if sign > 0 else (-2.1, 0.15), xlabel="ratio π/π_old")
        axes.set_title(f"An action {name} than expected: A = {'+1' if sign > 0 else '−1'}")
        axes.legend(loc="upper left" if sign > 0 else "lower left")
    return fig


def _describe(knobs, curves):
    low, high = 1 - knobs["clip_param"], 1 + knobs["clip_param_high"]
    better, worse = (float(curves[f"here_{name}"][1, 1]) + 0.0 for name in ("better", "worse"))  # a −0 becomes 0
    return (
        f"At a ratio of {knobs['ratio']:.2f}, with the clip range {low:.2f} to {high:.2f}, an action that was better "
        f"than expected is pushed with {better:.3g} and one that was worse with {worse:.3g}."
    )
