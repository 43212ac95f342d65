"""Exercises of notebook 09. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import implies
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.losses import estimate_kl
from artifex_rl.rl.returns import compute_group_advantages

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)

# Exercise 1: the density of a picture ----------------------------------------------------------------------------


@jax.jit
def _log_prob(samples, mean, std):
    """The library's Gaussian around what a generator makes."""
    log_std = jnp.full(mean.shape[1:], jnp.log(std))
    return DiagonalGaussian(mean, log_std, event_ndim=2).log_prob(samples)


def _draw_pictures(rng, size):
    """As many pictures as rows or columns in some cases, so that the axes can be mixed up."""
    shape = size, int(pick(rng, 1, 2, 3)), 2
    return {"samples": tenths(rng, *shape), "mean": tenths(rng, *shape), "std": float(pick(rng, 0.5, 2.0, 3.0))}


def _per_pixel(width=lambda std: std, constant=HALF_LOG_2PI, half=0.5, over=np.sum):
    """The log-density put together in some wrong way, over the pixels of each picture."""

    def log_prob(samples, mean, std):
        distance = (samples - mean) / width(std)
        return over(-half * distance**2 - np.log(width(std)) - constant, axis=(1, 2))

    return log_prob


picture_log_prob = Exercise(
    name="picture_log_prob",
    title="How likely was this picture?",
    minutes=8,
    difficulty="easy",
    task="""
`samples` and `mean` are `(B, H, W)`: the generator made `mean`, and each pixel of a sample was drawn from a normal
distribution around it with the standard deviation `std`, independently of all others.

Write `picture_log_prob`, the log-density of each **picture**, `(B,)`. That of one pixel $x$ is
$-\\frac{(x - \\mu)^2}{2\\sigma^2} - \\log\\sigma - \\frac12\\log 2\\pi$.
""",
    solution="""
def picture_log_prob(samples, mean, std):
    pixels = -((samples - mean) ** 2) / (2 * std**2) - np.log(std) - 0.5 * np.log(2 * np.pi)
    return pixels.sum(axis=(1, 2))
""",
    remark="""
Independent events multiply, so their logarithms *add*. A mean over the pixels would be the log of another number, the
geometric mean of the pixels' densities, and 64 times too small for a picture of 8 × 8.
""",
    reference=_log_prob,
    draw=_draw_pictures,
    axes=("picture",),
    properties=(
        implies(
            "at its own mean and with std 1 every pixel has the density 1/√2π, and those of picture {0} have not",
            lambda inputs: {"samples": inputs["mean"], "std": 1.0},
            lambda result, inputs: np.full(len(result), -HALF_LOG_2PI * inputs["mean"][0].size),
        ),
        implies(
            "at its own mean a picture with twice the noise has log 2 less for every pixel, and picture {0} has not",
            lambda inputs: {"samples": inputs["mean"], "std": 2.0},
            lambda result, inputs: np.full(
                len(result), -(np.log(2.0) + HALF_LOG_2PI) * inputs["mean"][0].size, dtype=float
            ),
        ),
    ),
    mistakes=(
        (
            _per_pixel(over=np.mean),
            "this is the mean over the pixels. They are independent: what do logarithms of densities do?",
        ),
        (
            lambda samples, mean, std: -((samples - mean) ** 2).sum(axis=(1, 2)),
            "a squared distance has no scale: where is the width of the Gaussian, and its log?",
        ),
        (
            _per_pixel(constant=0.0),
            "the ½ log 2π of each pixel is missing.",
        ),
        (
            lambda samples, mean, std: _log_prob(samples, mean, std) + np.log(std) * mean[0].size,
            "the log σ of each pixel is missing: a wide Gaussian is a low one.",
        ),
        (
            _per_pixel(width=np.sqrt),
            "std is the standard deviation already, and you take its root.",
        ),
        (
            _per_pixel(width=np.square),
            "std is taken for the variance, or squared once too often.",
        ),
        (
            _per_pixel(half=1.0),
            "the ½ before the squared distance is missing.",
        ),
        (
            lambda samples, mean, std: np.exp(np.asarray(_log_prob(samples, mean, std), float)),
            "this is the density itself; its logarithm was asked for.",
        ),
    ),
)

# Exercise 2: the gradient of the score function ------------------------------------------------------------------


@jax.jit
def _gradient(samples, mean, std, rewards):
    """The library's density, differentiated, with the library's advantages."""
    count = len(rewards)
    centred = compute_group_advantages(rewards, count, scale="none")

    def objective(mean):
        around = jnp.broadcast_to(mean, samples.shape)
        density = DiagonalGaussian(around, jnp.full(mean.shape, jnp.log(std)))
        return density.log_prob(samples) @ centred / count

    return jax.grad(objective)(mean)


def _draw_samples(rng, size):
    return {
        "samples": tenths(rng, size, 3),
        "mean": tenths(rng, 3),
        "std": float(pick(rng, 0.5, 2.0)),
        "rewards": tenths(rng, size),
    }


def _weigh(advantage=lambda r: r - r.mean(), slope=lambda d, std: d / std**2, over=np.mean):
    """Rewards and slopes put together in some wrong way."""

    def gradient(samples, mean, std, rewards):
        return over(advantage(rewards)[:, None] * slope(samples - mean, std), axis=0)

    return gradient


score_function_gradient = Exercise(
    name="score_function_gradient",
    title="Uphill, without looking into the discriminator",
    minutes=10,
    difficulty="medium",
    task="""
B samples `(B, D)` were drawn around one `mean` `(D,)` with the standard deviation `std`, and the discriminator paid
`rewards` `(B,)`. Nobody gives you the discriminator's own gradient.

Write `score_function_gradient`, REINFORCE's estimate of the gradient of the mean reward by `mean`, `(D,)`: the mean
over the samples of $(r_i - \\bar r)\\,\\nabla_\\mu \\log \\mathcal N(x_i; \\mu, \\sigma^2)$, where $\\bar r$ is the
mean of the rewards.
""",
    solution="""
def score_function_gradient(samples, mean, std, rewards):
    slopes = (samples - mean) / std**2  # of the log-density, by the mean
    advantages = rewards - rewards.mean()
    return (advantages[:, None] * slopes).mean(axis=0)
""",
    remark="""
Read it aloud: *move towards the samples that were paid more than the others*. At a sample that is the mean itself the
slope is 0: without noise nothing is learnt. One sample alone has nothing to be compared with, and says 0 too.
""",
    reference=_gradient,
    draw=_draw_samples,
    axes=("dimension",),
    properties=(
        implies(
            "a constant added to all rewards changes no comparison, and dimension {0} of the gradient moves",
            lambda inputs: {"rewards": inputs["rewards"] + 1.0},
            lambda result, inputs: result,
        ),
        implies(
            "with all samples at the mean there is no slope, and dimension {0} of the gradient is not 0",
            lambda inputs: {"samples": np.tile(inputs["mean"], (len(inputs["samples"]), 1))},
            lambda result, inputs: 0 * result,
        ),
        implies(
            "twice the distances and twice the noise are half the gradient, and dimension {0} does not say so",
            lambda inputs: {"samples": 2 * inputs["samples"], "mean": 2 * inputs["mean"], "std": 2 * inputs["std"]},
            lambda result, inputs: result / 2,
        ),
    ),
    mistakes=(
        (
            _weigh(advantage=lambda r: r),
            "the rewards are weighed as they are: the mean of all is to be subtracted.",
        ),
        (
            _weigh(slope=lambda d, std: -d / std**2),
            "it points downhill: which way does log N rise as the mean moves towards a sample?",
        ),
        (
            _weigh(slope=lambda d, std: d / std),
            "the slope of −(x − μ)²/2σ² by μ has σ² below it.",
        ),
        (
            _weigh(slope=lambda d, std: d),
            "the noise does not occur: a sample two σ away is rarer than one two pixels away.",
        ),
        (
            _weigh(over=np.sum),
            "this is the sum over the samples: a batch twice as large would step twice as far.",
        ),
        (
            _weigh(slope=lambda d, std: 2 * d / std**2),
            "the ½ of the log-density cancels the 2 of its square.",
        ),
    ),
)

# Exercise 3: a leash in the reward -------------------------------------------------------------------------------


@jax.jit
def _advantages(rewards, log_probs, ref_log_probs, beta):
    """The library's k1 in the reward, and its leave-one-out baseline."""
    paid, count = rewards - beta * estimate_kl(log_probs, ref_log_probs, "k1"), len(rewards)
    return compute_group_advantages(paid, count, scale="none") * (count / (count - 1))


def _draw_leash(rng, size):
    return {
        "rewards": tenths(rng, size),
        "log_probs": tenths(rng, size, low=-9, high=-1),
        "ref_log_probs": tenths(rng, size, low=-9, high=-1),
        "beta": float(pick(rng, 0.1, 0.5, 2.0)),
    }


def _leash(price, baseline=lambda paid: (paid.sum() - paid) / (len(paid) - 1)):
    """A price of the distance and a baseline, put together in some wrong way."""

    def advantages(rewards, log_probs, ref_log_probs, beta):
        paid = rewards - price(log_probs, ref_log_probs, beta)
        return paid - baseline(paid)

    return advantages


def _ratio(log_probs, ref_log_probs, beta):
    return beta * (log_probs - ref_log_probs)


leashed_advantages = Exercise(
    name="leashed_advantages",
    title="A leash in the reward",
    minutes=10,
    difficulty="medium",
    task="""
A policy without a critic is held to a reference by its reward: of each sample's reward $\\beta$ times
$\\log\\pi - \\log\\pi_\\text{ref}$ is taken away. Then each sample is compared with the mean of **the others**.

Write `leashed_advantages`, `(B,)` for B ≥ 2 samples: what is paid for each, less the mean of what is paid for all
others.
""",
    solution="""
def leashed_advantages(rewards, log_probs, ref_log_probs, beta):
    paid = rewards - beta * (log_probs - ref_log_probs)
    others = (paid.sum() - paid) / (len(paid) - 1)
    return paid - others
""",
    remark="""
A sample that the policy likes better than the reference does is paid less, one that it neglects is paid more: that
pulls back. In the mean the price is $\\beta\\,$KL. But the mean *as a number*, the same for all samples, would be in
every reward and in every baseline, and would pull at nothing.
""",
    reference=_advantages,
    draw=_draw_leash,
    axes=("sample",),
    sizes=(2, 3, 5, 8),
    properties=(
        implies(
            "without β the leash is off, and sample {0} is not compared by its reward alone",
            lambda inputs: {"beta": 0.0},
            lambda result, inputs: (inputs["rewards"] - inputs["rewards"].mean()) * len(result) / (len(result) - 1),
        ),
        implies(
            "where both policies say the same the leash costs nothing, and sample {0} pays",
            lambda inputs: {"ref_log_probs": inputs["log_probs"]},
            lambda result, inputs: (inputs["rewards"] - inputs["rewards"].mean()) * len(result) / (len(result) - 1),
        ),
        implies(
            "a constant added to all rewards changes no comparison, and sample {0} notices",
            lambda inputs: {"rewards": inputs["rewards"] + 1.0},
            lambda result, inputs: result,
        ),
    ),
    mistakes=(
        (
            _leash(_ratio, baseline=lambda paid: paid.mean()),
            "the mean of all holds the sample itself. Compare it with the others.",
        ),
        (
            _leash(lambda log_probs, ref, beta: -_ratio(log_probs, ref, beta)),
            "the leash pushes away: what the policy likes better than the reference does is to cost something.",
        ),
        (
            _leash(lambda log_probs, ref, beta: np.mean(_ratio(log_probs, ref, beta))),
            "nothing is taken away, or the same number from every sample, which the baseline takes out again.",
        ),
        (
            _leash(lambda log_probs, ref, beta: beta * log_probs),
            "the reference does not occur: this is a price for being likely, an entropy bonus.",
        ),
        (
            _leash(lambda log_probs, ref, beta: beta * (np.exp(log_probs) - np.exp(ref))),
            "the difference is of log-probabilities, not of probabilities.",
        ),
        (
            _leash(_ratio, baseline=lambda paid: 0 * paid),
            "nothing is compared: the mean of the others is still to be subtracted.",
        ),
    ),
)

# Diagnosis lab: three runs that draw sevens ------------------------------------------------------------------------

gan_red = Choice(
    name="gan_red",
    right="a",
    explanations={
        "a": "The lowest score of the three and the most restless loss, and still: its sevens differ, the "
        "discriminator, who was not paid here, finds them as good as before, and they lie as near to real digits. "
        "What it lacks in the score is the price of the leash.",
        "b": "Look at its diversity: are these the same picture?",
        "c": "Ask the witness of distance: its pictures lie where the generator's have always been.",
    },
)

gan_blue = Choice(
    name="gan_blue",
    right="b",
    explanations={
        "a": "Everyone who is asked about one picture at a time is delighted. Who is asked about two?",
        "b": "Each of its pictures is a seven, and it is always the same one. Scorer, discriminator and judge look "
        "at one picture at a time, so none of them can object; diversity can.",
        "c": "A generator that is frozen cannot leave what it is able to draw. Something else is wrong.",
    },
)

gan_green = Choice(
    name="gan_green",
    right="c",
    explanations={
        "a": "Scorer, judge and diversity agree, and all of them have a blind spot in common: none of them knows "
        "what paper and ink look like. Who does?",
        "b": "Its diversity is that of real sevens. It does not draw one picture.",
        "c": "It may move every pixel, and has found what two classifiers take for a seven. The discriminator would "
        "not take it for a digit, and no real digit is near.",
    },
)

# Quiz --------------------------------------------------------------------------------------------------------------

gan_quiz_density = Choice(
    name="gan_quiz_density",
    right="c",
    explanations={
        "a": "With a smaller σ the density at G(z) grows, and its slope there stays what it was. What is it?",
        "b": "The squared distance of G(z) from itself is 0, and so is its slope: there is nothing to be weighed.",
        "c": "All probability sits on one point, so no other sample can be compared with it, and log π has no slope "
        "to climb. Noise around the picture, or before it, makes a policy of a generator.",
    },
)

gan_quiz_entropy = Choice(
    name="gan_quiz_entropy",
    right="b",
    explanations={
        "a": "How wide are its Gaussians, and may they change?",
        "b": "The entropy of a Gaussian is a sum of log σ, and here σ is given: nothing that is learnt occurs in it. "
        "It is a number in the loss without a gradient. The latent policy learns its widths, and there it counts.",
        "c": "The entropy is that of the noise around a picture. Does it know the other pictures?",
    },
)

gan_quiz_frozen = Choice(
    name="gan_quiz_frozen",
    right="a",
    explanations={
        "a": "It learnt to tell real digits from what this generator drew then, and was never shown anything else. "
        "Where neither of them ever was its score means nothing, and there the reward sends the policy.",
        "b": "It has not changed by a bit. What has changed is what it is shown.",
        "c": "A larger network has as many pictures that it never saw. What would have helped is to go on playing.",
    },
)
