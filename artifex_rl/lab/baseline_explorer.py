"""Explorer of baselines: how far REINFORCE's gradient scatters, and what it is worth to subtract the right number."""

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
from artifex_rl.rl.returns import compute_group_advantages

#: Samples in a batch at most, batches in a cloud, and the offsets over which the variance is drawn.
MOST_SAMPLES, BATCHES = 32, 80
OFFSETS = np.linspace(-2, 2, 41).astype(np.float32)

BASELINES = {
    "none": ("no baseline", "grey"),
    "mean": ("batch mean", "orange"),
    "leave_one_out": ("leave-one-out", "green"),
    "value": ("value, E[r]", "blue"),
    "optimal": ("best constant", "pink"),
}
MEAN, LEAVE_ONE_OUT = 1, 2
#: What a variance of 0, or less by rounding, is drawn as on its logarithmic axis.
LEAST_VARIANCE = 1e-8


class BaselineExplorer(Explorer):
    """The scatter of REINFORCE's gradient under five baselines, for a policy that chooses one of K answers.

    With so few answers nothing need be estimated: the true gradient, and mean and variance of what a batch of n
    samples says of it, come from enumerating all answers, or all pairs of them where samples enter each other's
    baseline. Beside that lie 80 batches as a trainer would draw them. A constant added to every reward leaves the
    true gradient alone, and moves only what has no baseline.

    The baselines are those of `REINFORCETrainer`: "none"; "mean" of the batch, which shrinks the gradient by 1 − 1/n;
    "leave_one_out", which does not; "value", here the exact E[r]; and beside them the constant of least variance,
    E[‖s‖² r] / E[‖s‖²] with the score s = ∇ log π (Greensmith et al., 2004, JMLR 5).

    Args:
        rewards: `(K,)`, of the answers. Default, with `logits`: P(Italian | word) of 16 frequent words.
        logits: `(K,)`, of the policy. Default for given rewards: all equal.

    Raises:
        ValueError: a shape does not fit, a number is not finite, or all rewards are equal.
    """

    def __init__(self, rewards: ArrayLike | None = None, logits: ArrayLike | None = None):
        if rewards is None and logits is None:
            words = load_scored_words()
            rewards, logits = words.p_italian, words.log_frequencies
        rewards, logits = read_scored_actions(rewards, logits)
        noise = np.random.default_rng(0).uniform(size=(BATCHES, MOST_SAMPLES)).astype(np.float32)
        super().__init__(
            [
                Control(
                    "offset", -2, 2, 0.1, 0, label="c  added to rewards", help="A constant added to every reward"
                ),
                Control("samples", 2, MOST_SAMPLES, 1, 8, label="n  samples", help="Samples in a batch"),
                Control("sharpness", 0, 3, 0.1, 1, label="sharpness", help="Factor on the policy's logits"),
            ],
            jax.tree_util.Partial(_curves, rewards, logits, jnp.asarray(noise)),
            _figure,
            _describe,
            "Drag c: what does a constant in the rewards do to the gradient?",
        )


def sample_gradients(scores, rewards, mask, constants):
    """∇ of REINFORCE's objective from one batch, under each baseline, `(5, K)`.

    Args:
        scores: `(n, K)`, ∇ log π of the sampled answers.
        rewards: `(n,)`.
        mask: `(n,)`, which samples there are.
        constants: the baselines "value" and "optimal", scalars.
    """
    count = jnp.sum(mask, dtype=rewards.dtype)
    centred = compute_group_advantages(rewards, rewards.shape[0], scale="none", mask=mask)
    advantages = {
        "none": rewards,
        "mean": centred,
        "leave_one_out": centred * (count / jnp.maximum(count - 1, 1)),
        **{name: rewards - constant for name, constant in constants.items()},
    }
    table = jnp.where(mask[None], jnp.stack([advantages[name] for name in BASELINES]), 0.0)
    return table @ scores / count


def exact_moments(rewards, probabilities, scores, samples):
    """Mean `(5, K)` and covariance `(5, K, K)` of `sample_gradients`, in the order of `BASELINES`.

    Where a baseline is a constant, one sample says all. Where samples enter each other's baseline the estimate is a
    U-statistic of pairs, with Hoeffding's covariance (1948, eq. 5.13): (4(n − 2) ζ₁ + 2 ζ₂) / (n(n − 1)).
    """
    of_singles = _moments_of_singles(rewards, probabilities, scores)
    return _combine(of_singles, _moments_of_pairs(rewards, probabilities, scores, samples), samples)


def _moments_of_singles(rewards, probabilities, scores):
    """Mean `(5, K)` and covariance `(5, K, K)` of what one sample says; of baselines that take several, 0."""
    constants, one = _constants(rewards, probabilities, scores), jnp.ones(1, bool)
    singles = jax.vmap(lambda s, r: sample_gradients(s[None], r[None], one, constants))(scores, rewards)
    return jnp.einsum("i,ijk->jk", probabilities, singles), jax.vmap(_covariance, (1, None))(singles, probabilities)


def _moments_of_pairs(rewards, probabilities, scores, samples):
    """Mean `(K,)` and covariance `(K, K)` of the leave-one-out gradient of n samples, from all pairs of answers."""
    size = len(rewards)
    both = jnp.stack([index.ravel() for index in jnp.indices((size, size))], axis=1)
    two, constants = jnp.ones(2, bool), _constants(rewards, probabilities, scores)
    pairs = jax.vmap(lambda pair: sample_gradients(scores[pair], rewards[pair], two, constants)[LEAVE_ONE_OUT])(both)
    given_one = jnp.einsum("j,ijk->ik", probabilities, pairs.reshape(size, size, size))
    first = _covariance(given_one, probabilities)
    second = _covariance(pairs, jnp.outer(probabilities, probabilities).reshape(-1))
    return probabilities @ given_one, (4 * (samples - 2) * first + 2 * second) / (samples * (samples - 1))


def _combine(of_singles, of_pairs, samples):
    """The mean over n samples: with a constant baseline 1/n of the covariance; the batch mean shrinks by 1 − 1/n."""
    (means, covariances), (mean, covariance), shrink = of_singles, of_pairs, 1 - 1 / samples
    means = means.at[LEAVE_ONE_OUT].set(mean).at[MEAN].set(shrink * mean)
    covariances = (covariances / samples).at[LEAVE_ONE_OUT].set(covariance)
    return means, covariances.at[MEAN].set(shrink**2 * covariance)


def read_policy(logits):
    """Probabilities `(K,)` of the answers, and their scores ∇ log π, `(K, K)`."""
    return jnp.exp(Categorical(logits).log_probs), jax.jacrev(lambda logits: Categorical(logits).log_probs)(logits)


def _constants(rewards, probabilities, scores):
    squares = probabilities * jnp.sum(scores**2, axis=1)
    return {"value": probabilities @ rewards, "optimal": squares @ rewards / jnp.sum(squares)}


def _covariance(values, weights):
    centred = values - (weights @ values)[None]
    return (centred * weights[:, None]).T @ centred


def _total(covariances):
    return jnp.trace(covariances, axis1=-2, axis2=-1)


def _curves(rewards, logits, noise, offset, samples, sharpness):
    probabilities, scores = read_policy(sharpness * logits)
    shifted = rewards + offset
    at_offsets = jax.vmap(lambda c: _moments_of_singles(rewards + c, probabilities, scores))(
        jnp.append(OFFSETS, offset)
    )
    of_pairs = _moments_of_pairs(shifted, probabilities, scores, samples)  # differences of rewards do not feel c
    every = jax.vmap(lambda of_singles: _combine(of_singles, of_pairs, samples))(at_offsets)
    means, covariances, totals = every[0][-1], every[1][-1], _total(every[1])
    true = probabilities * rewards @ scores
    length = jnp.sqrt(true @ true)
    along = true / length

    # The same quantiles at every setting, so that the cloud moves and does not jump.
    ladder = jnp.broadcast_to(jnp.cumsum(probabilities)[:-1], (*noise.shape, len(rewards) - 1))
    answers = jnp.sum(noise[..., None] > ladder, axis=-1)
    mask = jnp.arange(MOST_SAMPLES, dtype=jnp.float32) < samples
    constants = _constants(shifted, probabilities, scores)
    clouds = jax.vmap(lambda a: sample_gradients(scores[a], shifted[a], mask, constants))(answers) @ along

    curves = {"true": jnp.stack([jnp.stack([length, jnp.float32(y)]) for y in (-0.6, 4.6)])}
    rows = jnp.linspace(-0.3, 0.3, BATCHES)
    for row, name in enumerate(BASELINES):
        mean, spread = means[row] @ along, jnp.sqrt(jnp.maximum(along @ covariances[row] @ along, 0))
        ends = jnp.stack([mean - spread, mean + spread])
        curves[f"cloud_{name}"] = jnp.stack([clouds[:, row], row + rows], axis=1)
        curves[f"spread_{name}"] = jnp.stack([ends, jnp.full(2, float(row))], axis=1)
        curves[f"mean_{name}"] = jnp.stack([jnp.stack([mean, jnp.float32(row)])])
        curves[f"variance_{name}"] = jnp.maximum(totals[:-1, row], LEAST_VARIANCE)
        curves[f"here_{name}"] = jnp.stack([offset, jnp.maximum(totals[-1, row], LEAST_VARIANCE)])[None]
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 3.9))
    cloud, variance = fig.subplots(1, 2, width_ratios=(1.15, 1))
    for name, (label, ink) in BASELINES.items():
        dots = {"ls": "", "marker": ".", "ms": 4, "alpha": 0.5, "mew": 0}
        cloud.plot(*curves[f"cloud_{name}"].T, gid=f"cloud_{name}", color=INK[ink]["color"], **dots)
        cloud.plot(*curves[f"spread_{name}"].T, gid=f"spread_{name}", color="black", lw=2.2)
        cloud.plot(*curves[f"mean_{name}"].T, gid=f"mean_{name}", color="black", marker="|", ms=15, mew=2.2, ls="")
        variance.plot(OFFSETS, curves[f"variance_{name}"], gid=f"variance_{name}", label=label, **INK[ink])
        variance.plot(*curves[f"here_{name}"].T, gid=f"here_{name}", marker="o", ms=6, ls="", color=INK[ink]["color"])
    cloud.plot(*curves["true"].T, gid="true", color="#888888", lw=1.2, ls="--")
    length = curves["true"][0, 0]
    reach = 2.2 * max(np.abs(curves[f"cloud_{name}"][:, 0] - length).max() for name in BASELINES)
    cloud.set(xlim=(length - reach, length + reach), ylim=(4.6, -0.6), xlabel="gradient along the true one (dashed)")
    cloud.set_yticks(range(len(BASELINES)), [label for label, _ in BASELINES.values()])
    cloud.set_title("80 batches; black: exact mean ± deviation")
    low = min(limits[f"variance_{name}"][0] for name in BASELINES)
    high = max(limits[f"variance_{name}"][1] for name in BASELINES)
    variance.set(xlim=(-2, 2), yscale="log", ylim=(low / 1.5, high * 12), xlabel="c, added to every reward")
    variance.set_title("Total variance of the gradient, exactly")
    variance.legend(loc="upper center", ncols=2, fontsize=9.5, handlelength=2.4, columnspacing=1.2)
    return fig


def _describe(knobs, curves):
    total = {name: curves[f"here_{name}"][0, 1] for name in BASELINES}
    true = curves["true"][0, 0]
    bias = curves["mean_mean"][0, 0] / true - 1
    return (
        f"With c = {knobs['offset']:.1f} and {knobs['samples']:.0f} samples the gradient's variance is "
        f"{total['none']:.3g} without a baseline, {total['leave_one_out']:.3g} with leave-one-out and "
        f"{total['value']:.3g} with the value; the batch mean shortens the true gradient, {true:.3g}, by {-bias:.1%}."
    )
