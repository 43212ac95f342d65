"""Explorers of credit assignment: what gamma does to returns, and gamma and lambda to advantages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data import load_cartpole_rollout
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.rl.arrays import read_floats, read_mask
from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages

#: Steps drawn at most: more would be finer than the screen and heavier than the page.
MOST_STEPS = 400
#: Steps ahead over which the small panel shows how quickly a reward fades.
AHEAD = 100

GAMMA = Control(
    "gamma", 0.0, 1.0, 0.01, 0.99, label="γ  discount", help="How much a reward one step later counts: 0 to 1"
)
LAMBDA = Control(
    "gae_lambda", 0.0, 1.0, 0.01, 0.95, label="λ  trace", help="0 trusts the critic, 1 waits for all rewards"
)


class ReturnsExplorer(Explorer):
    """Discounted returns of a rollout as gamma moves, beside how fast a reward fades with its distance.

    Args:
        rewards: `(T,)`. Default, with `dones`: a real CartPole rollout. Of a long one the first 400 steps are drawn.
        dones: `(T,)`, true where an episode ends. Default: the last step alone.

    Raises:
        ValueError: a shape does not fit.
    """

    def __init__(self, rewards: ArrayLike | None = None, dones: ArrayLike | None = None):
        if rewards is None:
            demo = load_cartpole_rollout()
            rewards, dones = demo.rewards, demo.dones
        (rewards,) = read_floats(rewards=rewards)
        steps = _check_one_stream(rewards)
        dones = jnp.arange(steps) == steps - 1 if dones is None else read_mask("dones", dones, rewards.shape)
        shown = min(steps, MOST_STEPS)

        def figure(curves, limits):
            fig = Figure(figsize=(8.6, 3.1))
            main, fade = fig.subplots(1, 2, width_ratios=(3, 1))
            time = np.arange(shown)
            main.plot(time, np.asarray(rewards[:shown]), drawstyle="steps-mid", label="reward", **INK["grey"])
            main.plot(time, curves["returns"], gid="returns", label="return", **INK["blue"])
            _mark_ends(main, dones[:shown])
            main.set(xlim=(0, shown - 1), ylim=_padded(*limits["returns"]), xlabel="time step")
            main.set_title("Return of every step: the rewards still to come, discounted")
            main.legend(loc="upper right", ncols=2)
            _draw_fade(fade, curves["fade"], "γᵏ", "Weight of a reward\nk steps ahead")
            return fig

        def describe(knobs, curves):
            gamma = knobs["gamma"]
            ends = {0.0: "only the reward itself counts", 1.0: "every later reward counts in full"}
            horizon = ends.get(gamma) or f"the horizon 1/(1−γ) is {1 / (1 - gamma):.3g} steps"
            return (
                f"With γ = {gamma:.2f} {horizon}; the return of the first step is {curves['returns'][0]:.3g}, "
                f"the largest is {curves['returns'].max():.3g}."
            )

        super().__init__(
            [GAMMA],
            jax.tree_util.Partial(_return_curves, rewards, dones),
            figure,
            describe,
            "Drag γ: how far does it see?",
        )


class AdvantageExplorer(Explorer):
    """Generalised advantages of a rollout as gamma and lambda move, between TD errors and Monte Carlo.

    Args:
        rewards: `(T,)`. Default, with all the others: a real CartPole rollout and its critic. Of a long rollout the
            first 400 steps are drawn.
        values: `(T,)` or `(T+1,)`, V(sₜ).
        dones: `(T,)`, true where an episode ends.
        truncations, next_values, last_value: as for `compute_gae_advantages`.

    Raises:
        ValueError: a shape does not fit, or `rewards` comes without `values` and `dones`.
    """

    def __init__(
        self,
        rewards: ArrayLike | None = None,
        values: ArrayLike | None = None,
        dones: ArrayLike | None = None,
        truncations: ArrayLike | None = None,
        next_values: ArrayLike | None = None,
        last_value: ArrayLike | None = None,
    ):
        if rewards is None and values is None and dones is None:
            demo = load_cartpole_rollout()
            rewards, values, dones = demo.rewards, demo.values, demo.dones
            truncations, next_values = demo.truncations, demo.next_values
        (rewards,) = read_floats(rewards=rewards)
        steps = _check_one_stream(rewards)
        optional = {"truncations": truncations, "next_values": next_values, "last_value": last_value}
        optional = {name: jnp.asarray(value) for name, value in optional.items() if value is not None}
        # Called once with plain arrays: a wrong shape, or a rollout that just stops, is said here and by name.
        compute_gae_advantages(rewards, values, dones, 1.0, 1.0, **optional)
        dones = read_mask("dones", dones, rewards.shape)
        shown = min(steps, MOST_STEPS)

        def figure(curves, limits):
            fig = Figure(figsize=(8.6, 3.6))
            main, fade = fig.subplots(1, 2, width_ratios=(3, 1))
            time = np.arange(shown)
            lowest = min(limits[name][0] for name in ("td_errors", "monte_carlo", "advantages"))
            highest = max(limits[name][1] for name in ("td_errors", "monte_carlo", "advantages"))
            main.plot(time, curves["monte_carlo"], gid="monte_carlo", label="Monte Carlo, λ=1", **INK["orange"])
            main.plot(time, curves["td_errors"], gid="td_errors", label="TD error, λ=0", **INK["green"])
            main.plot(time, curves["advantages"], gid="advantages", label="advantage", lw=2.4, **INK["blue"])
            main.axhline(0, color="#888888", lw=0.8)
            _mark_ends(main, dones[:shown])
            low, high = _padded(lowest, highest)
            main.set(xlim=(0, shown - 1), ylim=(low, high + 0.18 * (high - low)), xlabel="time step")
            main.set_title("Was the action better than the critic expected?")
            main.legend(loc="upper left", ncols=3, columnspacing=1.2, fontsize=9.5, handlelength=2.4)
            _draw_fade(fade, curves["fade"], "(γλ)ᵏ", "Weight of a TD error\nk steps ahead")
            return fig

        def describe(knobs, curves):
            spread = {
                name: np.sqrt(np.mean(curves[name] ** 2)) for name in ("advantages", "td_errors", "monte_carlo")
            }
            return (
                f"With γ = {knobs['gamma']:.2f} and λ = {knobs['gae_lambda']:.2f} the advantages have a root mean "
                f"square of {spread['advantages']:.3g}, between {spread['td_errors']:.3g} for the TD errors and "
                f"{spread['monte_carlo']:.3g} for Monte Carlo."
            )

        super().__init__(
            [GAMMA, LAMBDA],
            jax.tree_util.Partial(_advantage_curves, rewards, jnp.asarray(values), dones, optional),
            figure,
            describe,
            "Drag γ and λ: which steps get the credit?",
        )


def _return_curves(rewards, dones, gamma):
    return {
        "returns": compute_discounted_returns(rewards, gamma, dones)[:MOST_STEPS],
        "fade": _fade(gamma, 1.0),
    }


def _advantage_curves(rewards, values, dones, optional, gamma, gae_lambda):
    def advantages(trace):
        return compute_gae_advantages(rewards, values, dones, gamma, trace, **optional)[:MOST_STEPS]

    return {
        "monte_carlo": advantages(1.0),
        "td_errors": advantages(0.0),
        "advantages": advantages(gae_lambda),
        "fade": _fade(gamma, gae_lambda),
    }


def _fade(gamma, gae_lambda):
    """What a reward of 1 adds to the advantage k steps before it, (γλ)ᵏ: GAE of an impulse, read backwards."""
    impulse = jnp.zeros(AHEAD + 1).at[-1].set(1.0)
    ends = impulse.astype(bool)
    return compute_gae_advantages(impulse, jnp.zeros_like(impulse), ends, gamma, gae_lambda)[::-1]


def _draw_fade(axes, fade, ylabel, title):
    axes.plot(np.arange(AHEAD + 1), fade, gid="fade", label=ylabel, **INK["pink"])
    axes.set(xlim=(0, AHEAD), ylim=(0, 1.03), xlabel="k, steps ahead", title=title)


def _mark_ends(axes, dones):
    """A thin vertical line where an episode ends."""
    for end in np.flatnonzero(np.asarray(dones)):
        axes.axvline(end + 0.5, ymax=0.87, color="#888888", lw=1.0, ls=":")  # below the legend


def _padded(low, high):
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _check_one_stream(rewards) -> int:
    if rewards.ndim != 1 or rewards.shape[0] < 2:
        raise ValueError(
            f"rewards: got shape {rewards.shape}, needs (T,) with at least two steps: one stream is drawn"
        )
    return rewards.shape[0]
