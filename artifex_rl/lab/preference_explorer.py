"""Explorer of preference losses: what each makes of a margin, how hard it pushes, and where it is content."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data.scored_samples import load_scored_words
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import read_floats
from artifex_rl.rl.losses import compute_dpo_loss, compute_simpo_loss

#: Margins at which the losses are drawn; 0 is one of them.
MARGINS = np.linspace(-15, 25, 161).astype(np.float32)
#: Pairs whose margins are marked below the curves.
MOST_PAIRS = 64
#: Losses above this are not drawn: there the legend stands.
TOP = 3.2

LOSSES = {
    "sigmoid": ("DPO, sigmoid", "blue"),
    "ipo": ("IPO, × β²", "orange"),
    "hinge": ("hinge", "green"),
    "robust": ("robust", "pink"),
    "simpo": ("SimPO", "grey"),
}


class PreferenceExplorer(Explorer):
    """Loss of one pair, and the push that it gives, against the margin by which the policy prefers the chosen one.

    The margin is in nats: the log-ratio log π/π_ref of the chosen response less that of the rejected one, summed over
    their tokens. DPO, IPO, hinge and robust take it as it is. SimPO knows no reference; it takes the difference of
    log π itself, drawn on the same axis, divides it by the length, and wants it above γ/β. The push is minus the
    gradient, divided by β: DPO's weight of a pair, from 0 to 1. IPO's loss is in squared nats, and drawn times β² to
    share the axes. A short vertical line marks where a loss is content: its least value, where that is at a finite
    margin. Ticks at the bottom are the margins of real pairs.

    Args:
        margins: `(B,)`, of up to 64 pairs of your own, in nats. Default: 48 pairs of an Italian word and one of
            another language, under a bigram of Italian letters with one of four languages as the reference.

    Raises:
        ValueError: the margins are of another shape, or not finite.
    """

    def __init__(self, margins: ArrayLike | None = None):
        if margins is None:
            pairs = load_scored_words()
            chosen = pairs.chosen_log_probs - pairs.ref_chosen_log_probs
            margins = chosen - (pairs.rejected_log_probs - pairs.ref_rejected_log_probs)
        (margins,) = read_floats(margins=margins)
        if margins.ndim != 1 or not 1 <= margins.shape[0] <= MOST_PAIRS:
            raise ValueError(f"margins: got shape {margins.shape}, needs (B,) with 1 to {MOST_PAIRS} pairs")
        check_finite("margins", margins)
        super().__init__(
            [
                Control(
                    "beta", 0.05, 1, 0.05, 0.2, label="β", help="Inverse temperature: how fast a margin satisfies"
                ),
                Control(
                    "label_smoothing", 0, 0.45, 0.01, 0, label="s  smoothing", help="Labels expected to be wrong"
                ),
                Control(
                    "gamma_beta_ratio", 0, 2, 0.05, 0.25, label="γ/β  margin", help="SimPO's target, nats a token"
                ),
                Control("length", 1, 20, 1, 5, label="tokens", help="Length of both responses, for SimPO's average"),
            ],
            jax.tree_util.Partial(_curves, margins.astype(jnp.float32)),
            lambda curves, limits: _figure(curves, margins),
            _describe,
            "Drag β and s: where is each loss content?",
        )


def preference_loss(margin, name, beta, label_smoothing, gamma_beta_ratio, length):
    """The library's loss of one pair with this margin; of IPO, times β²."""
    margin, zero = margin[None], jnp.zeros(1)
    if name == "simpo":
        lengths = jnp.reshape(length, 1)
        return compute_simpo_loss(
            margin, zero, lengths, lengths, beta, gamma_beta_ratio, label_smoothing=label_smoothing
        )
    loss = compute_dpo_loss(margin, zero, zero, zero, beta, name, label_smoothing)
    return loss * beta**2 if name == "ipo" else loss


def _curves(margins, beta, **knobs):
    curves = {}
    for name in LOSSES:
        both = jax.vmap(jax.value_and_grad(lambda h, name=name: preference_loss(h, name, beta, **knobs)))
        losses, gradients = both(jnp.asarray(MARGINS))
        curves[f"loss_{name}"], curves[f"push_{name}"] = jnp.where(losses <= TOP, losses, jnp.nan), -gradients / beta
        # Content where the loss is least, unless that is where the drawing ends.
        least = jnp.argmin(losses)
        inside = (least > 0) & (least < len(MARGINS) - 1)
        where = jnp.where(inside, jnp.asarray(MARGINS)[least], jnp.nan)
        curves[f"rest_{name}"] = jnp.stack([jnp.stack([where, jnp.float32(y)]) for y in (-0.12, 0.12)])
        curves[f"mean_{name}"] = jnp.clip(jnp.mean(both(margins)[0]), -0.5, TOP)[None]  # a mark has to stay in sight
    return curves


def _figure(curves, margins):
    fig = Figure(figsize=(8.6, 4.1))
    loss, push = fig.subplots(1, 2)
    for name, (label, ink) in LOSSES.items():
        colour = INK[ink]["color"]
        wide = {"lw": 5, "alpha": 0.7} if name == "sigmoid" else {}  # others may lie on it
        loss.plot(MARGINS, curves[f"loss_{name}"], gid=f"loss_{name}", label=label, **INK[ink], **wide)
        push.plot(MARGINS, curves[f"push_{name}"], gid=f"push_{name}", label=label, **INK[ink], **wide)
        push.plot(*curves[f"rest_{name}"].T, gid=f"rest_{name}", color=colour, lw=3.5)
        mean = {"marker": "<", "ms": 7, "ls": "", "color": colour}
        loss.plot([24.3], curves[f"mean_{name}"], gid=f"mean_{name}", label=f"_{name}", **mean)
    for axes in (loss, push):
        axes.axhline(0, color="#888888", lw=0.8)
        axes.axvline(0, color="#888888", lw=0.8)
        axes.set(xlim=(MARGINS[0], MARGINS[-1]), xlabel="margin h, nats, summed over tokens")
    shown = np.asarray(margins)
    push.plot(shown, np.full(len(shown), -0.92), "|", color="black", ms=9, alpha=0.55)
    push.text(MARGINS[0] + 0.6, -0.97, "real pairs", fontsize=9.5)
    loss.set(ylim=(-0.6, TOP + 1))
    loss.set_title("Loss of a pair; ◂ mean over the real pairs")
    loss.legend(loc="upper right", ncols=2, fontsize=9.5, handlelength=2.4, columnspacing=1.2)
    push.set(ylim=(-1.15, 2.2))
    push.set_title("Push, −gradient ÷ β; bar: content")
    return fig


def _describe(knobs, curves):
    content = []
    for name, (label, _) in LOSSES.items():
        rest = curves[f"rest_{name}"][0, 0]
        content.append(f"{label.split(',')[0]} {'nowhere' if np.isnan(rest) else f'at {rest:.1f}'}")
    at_zero = int(np.flatnonzero(MARGINS == 0)[0])
    return (
        f"With β = {knobs['beta']:.2f} and smoothing {knobs['label_smoothing']:.2f} a loss is content at a margin "
        f"of: {', '.join(content)}; at margin 0 DPO pushes with {curves['push_sigmoid'][at_zero]:.2f} and SimPO, "
        f"over {knobs['length']:.0f} tokens, with {curves['push_simpo'][at_zero]:.2g}."
    )
