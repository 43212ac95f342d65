"""Explorer of the KL penalty: what its estimators say, and where each of them lets a policy come to rest."""

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
from artifex_rl.lab.scored_actions import read_scored_actions
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.losses import estimate_kl

#: Distances along the path at which the curves are drawn.
DISTANCES = np.linspace(0, 8, 81).astype(np.float32)
#: Above this a pull is as good as a wall, and is not drawn.
MOST_PULL = 3.0

ESTIMATORS = {"k1": ("k1", "orange"), "k2": ("k2", "green"), "k3": ("k3", "pink")}


class KLExplorer(Explorer):
    """Value and gradient of KL(π ‖ π_ref) and of its three estimators, as a policy moves away from its reference.

    The path is the one that a reward r bends a policy along: π_t ∝ π_ref · exp(t r), where t is the distance. On it
    lies what maximises E[r] − β KL, at t = 1/β. Left: the values, with a band of one standard deviation for the mean
    of n samples. Right: how hard β times each of them pulls back when it stands *in the loss*, as GRPO has it,
    beside how hard the reward pushes on: the expected gradients along the path, the one divided by the other. Where
    they are equal, at 1, the policy comes to rest.

    All means and deviations are sums over the K answers; nothing is sampled. The gradients are those of
    `estimate_kl` at samples that are held fixed. k1 has the right value and an expected gradient of 0; k2 has the
    wrong value and the right gradient; k3 has the right value and the gradient of KL(π_ref ‖ π).

    Args:
        rewards: `(K,)`, of the answers; shifted and scaled to run from 0 to 1. Default, with `logits`: P(Italian |
            word) of 16 frequent words.
        logits: `(K,)`, of the reference. Default for given rewards: all equal.

    Raises:
        ValueError: a shape does not fit, a number is not finite, or all rewards are equal.

    Reference: Schulman (2020), http://joschu.net/blog/kl-approx.html; Tang & Munos (2025), arXiv:2506.09477, on
    estimators in the loss.
    """

    def __init__(self, rewards: ArrayLike | None = None, logits: ArrayLike | None = None):
        if rewards is None and logits is None:
            words = load_scored_words()
            rewards, logits = words.p_italian, words.log_frequencies
        rewards, logits = read_scored_actions(rewards, logits)
        rewards = (rewards - rewards.min()) / (rewards.max() - rewards.min())
        super().__init__(
            [
                Control("distance", 0, 8, 0.1, 3, label="t  distance", help="How far the reward has bent the policy"),
                Control("beta", 0.1, 1, 0.02, 0.3, label="β  KL weight", help="Weight of the KL penalty in the loss"),
                Control("samples", 1, 64, 1, 16, label="n  samples", help="Samples in the mean; they set the bands"),
            ],
            jax.tree_util.Partial(_curves, rewards, logits),
            _figure,
            _describe,
            "Drag t and β: who pulls the policy back, and where does it rest?",
        )


def estimator_moments(rewards, logits, distance, estimator):
    """Mean and standard deviation of `estimate_kl` for one sample of π_t."""
    policy, ref = Categorical(logits + distance * rewards).log_probs, Categorical(logits).log_probs
    estimates, weights = estimate_kl(policy, ref, estimator), jnp.exp(policy)
    mean = weights @ estimates
    return mean, jnp.sqrt(weights @ (estimates - mean) ** 2)


def expected_pull(rewards, logits, distance, estimator):
    """Expected gradient of `estimate_kl` with respect to the distance, as in a loss: the samples are held fixed."""
    weights = jax.lax.stop_gradient(jnp.exp(Categorical(logits + distance * rewards).log_probs))

    def loss(distance):
        policy, ref = Categorical(logits + distance * rewards).log_probs, Categorical(logits).log_probs
        return weights @ estimate_kl(policy, ref, estimator)

    return jax.grad(loss)(distance)


def _curves(rewards, logits, distance, beta, samples):
    def reward(distance):
        return jnp.exp(Categorical(logits + distance * rewards).log_probs) @ rewards

    def exact(distance):
        return Categorical(logits + distance * rewards).kl(Categorical(logits))

    def at(distance):
        push = jax.grad(reward)(distance)
        pulls = {name: expected_pull(rewards, logits, distance, name) for name in ESTIMATORS}
        pulls["exact"] = jax.grad(exact)(distance)
        moments = {name: estimator_moments(rewards, logits, distance, name) for name in ESTIMATORS}
        return exact(distance), moments, {name: beta * pull / push for name, pull in pulls.items()}

    values, moments, pulls = jax.vmap(at)(jnp.append(DISTANCES, distance))
    curves = {"exact": values[:-1], "here_exact": jnp.stack([distance, values[-1]])[None]}
    for name in ("exact", *ESTIMATORS):
        pull = pulls[name]
        curves[f"pull_{name}"] = jnp.where(pull[:-1] <= MOST_PULL, pull[:-1], jnp.nan)
        curves[f"here_pull_{name}"] = jnp.stack([distance, jnp.minimum(pull[-1], MOST_PULL)])[None]
    for name, (mean, deviation) in moments.items():
        error = deviation[:-1] / jnp.sqrt(samples)
        curves[f"mean_{name}"] = mean[:-1]
        curves[f"low_{name}"], curves[f"high_{name}"] = mean[:-1] - error, mean[:-1] + error
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 3.9))
    value, pull = fig.subplots(1, 2)
    value.plot(DISTANCES, curves["exact"], gid="exact", label="exact", lw=5, alpha=0.7, **INK["blue"])
    pull.plot(DISTANCES, curves["pull_exact"], gid="pull_exact", label="exact", lw=5, alpha=0.7, **INK["blue"])
    for name, (label, ink) in ESTIMATORS.items():
        value.plot(DISTANCES, curves[f"mean_{name}"], gid=f"mean_{name}", label=label, **INK[ink])
        for edge in ("low", "high"):
            thin = {**INK[ink], "lw": 0.9}
            value.plot(DISTANCES, curves[f"{edge}_{name}"], gid=f"{edge}_{name}", label=f"{label}, {edge}", **thin)
        pull.plot(DISTANCES, curves[f"pull_{name}"], gid=f"pull_{name}", label=label, **INK[ink])
    value.plot(*curves["here_exact"].T, gid="here_exact", marker="o", ms=6, ls="", color="black")
    for name, ink in (("exact", "blue"), *((name, ink) for name, (_, ink) in ESTIMATORS.items())):
        dot = {"marker": "o", "ms": 6, "ls": "", "color": INK[ink]["color"]}
        pull.plot(*curves[f"here_pull_{name}"].T, gid=f"here_pull_{name}", **dot)
    pull.axhline(1, color="black", lw=1)
    pull.text(7.9, 1.04, "rest: pull = push", ha="right", fontsize=9.5)
    value.axhline(0, color="#888888", lw=0.8)
    top = max(float(np.max(curves[f"mean_{name}"])) for name in ESTIMATORS)
    value.set(xlim=(0, 8), ylim=(-0.25 * top, 1.5 * top), xlabel="t, distance from the reference")
    value.set_title("KL in nats; thin: ± one deviation")
    value.legend(*_main_lines(value), loc="upper left", ncols=2)
    pull.set(xlim=(0, 8), ylim=(-0.15, 1.25 * MOST_PULL), xlabel="t, distance from the reference")
    pull.set_title("Pull of β · KL in the loss ÷ push of the reward")
    pull.legend(loc="upper left", ncols=4, handlelength=2.4, columnspacing=1.0, fontsize=9.5)
    return fig


def _main_lines(axes):
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    return zip(*[(line, label) for line, label in pairs if "," not in label], strict=True)


def _describe(knobs, curves):
    i = round(knobs["distance"] * 10)
    band = {name: curves[f"high_{name}"][i] - curves[f"mean_{name}"][i] for name in ESTIMATORS}
    rest = {name: _rest(curves[f"pull_{name}"]) for name in ("exact", *ESTIMATORS)}
    return (
        f"At t = {knobs['distance']:.1f} the KL is {curves['exact'][i]:.3f} nats; k1 says so ± {band['k1']:.2g}, "
        f"k3 ± {band['k3']:.2g}, k2 says {curves['mean_k2'][i]:.3f}. With β = {knobs['beta']:.2f} in the loss the "
        f"policy rests at {rest['exact']} by the exact KL, {rest['k2']} by k2, {rest['k3']} by k3; by k1 nowhere."
    )


def _rest(pull):
    """Where the pull first reaches the push, between two points of the curve."""
    above = np.flatnonzero(np.nan_to_num(pull, nan=MOST_PULL) >= 1)
    if not above.size or above[0] == 0:
        return "no distance drawn"
    i = above[0]
    after = pull[i] if np.isfinite(pull[i]) else MOST_PULL
    share = (1 - pull[i - 1]) / (after - pull[i - 1])
    return f"{DISTANCES[i - 1] + share * (DISTANCES[i] - DISTANCES[i - 1]):.2f}"
