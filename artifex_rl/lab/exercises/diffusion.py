"""Exercises of notebook 07. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.diffusion import denoising_step
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import holds, implies, unmoved_by
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.losses import compute_clipped_surrogate_loss
from artifex_rl.rl.returns import compute_group_advantages

# Exercise 1: how noisy is a step? --------------------------------------------------------------------------------


@jax.jit
def _library_std(alpha_bar, next_alpha_bar, eta, min_std):
    nothing = jnp.zeros_like(alpha_bar)
    return denoising_step(nothing, nothing, alpha_bar, next_alpha_bar, eta, min_std)[1]


def _step_std(alpha_bar, next_alpha_bar, eta, min_std):
    single = (np.asarray(x, np.float32) for x in (alpha_bar, next_alpha_bar, eta, min_std))
    return _library_std(*single)


def _draw_levels(rng, size):
    """Levels that rise from noise to data, the last step onto the data; floors that are in force at some steps."""
    levels = np.sort(rng.choice(np.arange(2, 99), size, replace=False)) / 100
    return {
        "alpha_bar": levels,
        "next_alpha_bar": np.append(levels[1:], 1.0),
        "eta": float(pick(rng, 1.0, 0.5, 0.2)),
        "min_std": float(pick(rng, 0.05, 0.1, 0.3)),
    }


def _std(formula, floor=np.maximum):
    return lambda alpha_bar, next_alpha_bar, eta, min_std: floor(formula(alpha_bar, next_alpha_bar, eta), min_std)


def _ddim(here, there, eta):
    return eta * np.sqrt((1 - there) / (1 - here) * (1 - here / there))


step_std = Exercise(
    name="step_std",
    title="How noisy is a step?",
    minutes=8,
    difficulty="easy",
    task="""
Before step $t$ the share `alpha_bar`, $\\bar\\alpha_t$, of the variance is picture, and after it `next_alpha_bar`,
$\\bar\\alpha_s$; both are `(T,)`, from noise to data. The noise of the step is

$$\\sigma_t = \\eta\\,\\sqrt{\\frac{1-\\bar\\alpha_s}{1-\\bar\\alpha_t}}\\,
\\sqrt{1-\\frac{\\bar\\alpha_t}{\\bar\\alpha_s}},$$

but never less than the floor `min_std`. Write `step_std`, which returns it for each step, `(T,)`.
""",
    solution="""
def step_std(alpha_bar, next_alpha_bar, eta, min_std):
    left = (1 - next_alpha_bar) / (1 - alpha_bar)
    return np.maximum(eta * np.sqrt(left * (1 - alpha_bar / next_alpha_bar)), min_std)
""",
    remark="""
At the last step $\\bar\\alpha_s$ is 1, and the formula gives 0 for every η: without a floor that step would be
certain, and would have no density. The floor is a choice, and the explorer shows what it is worth: most of the price
of moving a guess is paid in that step.
""",
    reference=_step_std,
    draw=_draw_levels,
    properties=(
        holds(
            "step {0} has less noise than the floor",
            lambda result, inputs: result >= inputs["min_std"] - 1e-6,
        ),
        implies(
            "with η = 0 the floor is all the noise there is, and step {0} has more",
            lambda inputs: {"eta": 0.0},
            lambda result, inputs: np.full(len(inputs["alpha_bar"]), inputs["min_std"]),
        ),
        implies(
            "without a floor, half of η is half of the noise, and that of step {0} is not",
            lambda inputs: {"min_std": 0.0, "eta": inputs["eta"] / 2},
            lambda result, inputs: _ddim(inputs["alpha_bar"], inputs["next_alpha_bar"], inputs["eta"]) / 2,
        ),
    ),
    mistakes=(
        (
            lambda alpha_bar, next_alpha_bar, eta, min_std: _ddim(alpha_bar, next_alpha_bar, eta),
            "the floor is missing: the last step has no noise at all, and no density.",
        ),
        (_std(_ddim, np.minimum), "a floor is from below: you take the smaller of the two."),
        (_std(_ddim, np.add), "the floor is added to the noise; it counts only where there would be less."),
        (_std(lambda here, there, eta: _ddim(here, there, 1.0)), "η is never looked at."),
        (_std(lambda here, there, eta: _ddim(here, there, eta) ** 2), "this is the variance: a root is missing."),
        (
            _std(lambda here, there, eta: eta * np.sqrt(1 - here / there)),
            "this is the noise by which the picture was spoilt. The first root is missing.",
        ),
        (
            lambda alpha_bar, next_alpha_bar, eta, min_std: (
                eta * np.maximum(_ddim(alpha_bar, next_alpha_bar, 1.0), min_std)
            ),
            "η multiplies the floor as well: the floor comes last.",
        ),
    ),
)

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)

# Exercise 2: the density of a trajectory -------------------------------------------------------------------------


@jax.jit
def _library_log_probs(path, means, stds):
    gauss = DiagonalGaussian(means, jnp.broadcast_to(jnp.log(stds)[:, None], means.shape))
    return gauss.log_prob(path[1:])


def _draw_path(rng, size):
    """A trajectory of three pixels, where its steps were expected, and how noisy they are."""
    return {
        "path": tenths(rng, size + 1, 3),
        "means": tenths(rng, size, 3),
        "stds": rng.integers(3, 16, size) / 10,
    }


def _density(reduce=lambda x: x.sum(axis=1), width=lambda stds: stds, constant=HALF_LOG_2PI, log=np.log):
    """With something about it that is wrong."""

    def log_probs(path, means, stds):
        distance = (path[1:] - means) / width(stds)[:, None]
        return reduce(-0.5 * distance**2 - log(stds)[:, None] - constant)

    return log_probs


def _log_std_once(path, means, stds):
    distance = (path[1:] - means) / stds[:, None]
    return -0.5 * (distance**2).sum(axis=1) - np.log(stds) - HALF_LOG_2PI


trajectory_log_probs = Exercise(
    name="trajectory_log_probs",
    title="The density of a trajectory",
    minutes=10,
    difficulty="medium",
    task="""
`path` is a trajectory $x_T, \\dots, x_0$, `(T + 1, D)` with $D$ pixels. Step $t$ was drawn from a Gaussian with the
mean `means[t]`, `(T, D)`, and the standard deviation `stds[t]`, `(T,)`, the same for each of its pixels.

Write `trajectory_log_probs`, the log-density of each step, `(T,)`. Pixels are independent: densities multiply.
""",
    solution="""
def trajectory_log_probs(path, means, stds):
    distance = (path[1:] - means) / stds[:, None]
    log_density = -0.5 * distance**2 - np.log(stds)[:, None] - 0.5 * np.log(2 * np.pi)
    return log_density.sum(axis=1)
""",
    remark="""
The start $x_T$ is drawn by every policy from the same $\\mathcal N(0, I)$, and cancels in each ratio. The last two
terms do not depend on the network either: they make up nearly all of the number, and nothing of what is learnt.
""",
    reference=lambda path, means, stds: _library_log_probs(*(np.asarray(x, np.float32) for x in (path, means, stds))),
    draw=_draw_path,
    properties=(
        unmoved_by(
            "the start x_T is drawn by everybody alike; another one moves the number of step {0}",
            lambda inputs: {"path": np.concatenate([inputs["path"][:1] + 7.7, inputs["path"][1:]])},
        ),
        implies(
            "where a step lands on its mean, log π is −D (log σ + ½ log 2π), and that of step {0} is not",
            lambda inputs: {"path": np.concatenate([inputs["path"][:1], inputs["means"]])},
            lambda result, inputs: -3 * (np.log(inputs["stds"]) + HALF_LOG_2PI),
        ),
        implies(
            "the same pixels twice have twice the log-density, and step {0} has not: do you add up over the pixels?",
            lambda inputs: {name: np.tile(inputs[name], (1, 2)) for name in ("path", "means")},
            lambda result, inputs: 2 * result,
        ),
    ),
    mistakes=(
        (
            _density(lambda x: x.mean(axis=1)),
            "this is the mean over the pixels. Densities multiply, so their logs add up.",
        ),
        (
            lambda path, means, stds: _density()(np.concatenate([path[:1], path[:-1]]), means, stds),
            "this is the density of where the step began. It is drawn where it lands: path[t + 1].",
        ),
        (_density(constant=0.0), "the constant of the Gaussian is missing, ½ log 2π for each pixel."),
        (_density(log=np.zeros_like), "log σ is missing: a narrow Gaussian is higher."),
        (_density(width=np.sqrt), "you divide by √σ: the distance is measured in standard deviations."),
        (_log_std_once, "log σ and the constant count for each pixel, and not once a step."),
        (
            _density(log=lambda stds: -np.log(stds)),
            "log σ has the wrong sign: a wide Gaussian is lower.",
        ),
    ),
)

# Exercise 3: GRPO on trajectories --------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="group_size")
def _library_loss(log_probs, old_log_probs, rewards, clip_param, group_size):
    advantages = compute_group_advantages(rewards, group_size, "none")
    advantages = jnp.broadcast_to(advantages[:, None], log_probs.shape)
    return compute_clipped_surrogate_loss(log_probs, old_log_probs, advantages, clip_param)


def _loss(log_probs, old_log_probs, rewards, clip_param):
    arrays = (np.asarray(x, np.float32) for x in (log_probs, old_log_probs, rewards, clip_param))
    return _library_loss(*arrays, group_size=len(rewards))


def _draw_group(rng, size):
    """One group of trajectories of four steps; ratios on either side of both bounds."""
    old = tenths(rng, size + 1, 4, low=-60.0, high=60.0)
    return {
        "log_probs": old + rng.integers(-5, 6, old.shape) / 10,
        "old_log_probs": old,
        "rewards": rng.integers(0, 11, size + 1) / 10,
        "clip_param": float(pick(rng, 0.1, 0.2, 0.3)),
    }


def _surrogate(
    advantage=lambda r: r - r.mean(), ratio=lambda d: np.exp(d), least=np.minimum, reduce=np.mean, sign=-1.0
):
    def loss(log_probs, old_log_probs, rewards, clip_param):
        rho, good = ratio(log_probs - old_log_probs), advantage(rewards)[:, None]
        clipped = np.clip(rho, 1 - clip_param, 1 + clip_param) * good
        return sign * reduce(least(rho * good, clipped))

    return loss


denoising_grpo_loss = Exercise(
    name="denoising_grpo_loss",
    title="GRPO on trajectories",
    minutes=15,
    difficulty="harder",
    task="""
`B` trajectories of `T` steps make up one group. `log_probs` and `old_log_probs` are `(B, T)`, one number for each
step; `rewards` is `(B,)`, one for each finished picture.

Write `denoising_grpo_loss`, a number. The advantage is the reward less the mean of the group, and holds for all steps
of its trajectory. Each *step* has its own ratio $\\rho = e^{\\log\\pi - \\log\\pi_\\text{old}}$, and adds
$-\\min(\\rho A, \\text{clip}(\\rho, 1 - \\varepsilon, 1 + \\varepsilon) A)$ to a mean over steps and trajectories.
""",
    solution="""
def denoising_grpo_loss(log_probs, old_log_probs, rewards, clip_param):
    ratio = np.exp(log_probs - old_log_probs)
    advantages = (rewards - rewards.mean())[:, None]
    clipped = np.clip(ratio, 1 - clip_param, 1 + clip_param) * advantages
    return -np.minimum(ratio * advantages, clipped).mean()
""",
    remark="""
It is the loss of notebook 04, with a step in the place of a token. A ratio of whole trajectories would be a product
of $T$ factors, and outside of the clip at once; a mean over pixels would never be.
""",
    reference=_loss,
    draw=_draw_group,
    axes=(),
    properties=(
        implies(
            "on fresh trajectories every ratio is 1 and the advantages add up to 0: so is the loss, and yours is not",
            lambda inputs: {"log_probs": inputs["old_log_probs"]},
            lambda result, inputs: 0.0,
        ),
        unmoved_by(
            "where all pictures are paid 10 more none is better than before, and the loss moves",
            lambda inputs: {"rewards": inputs["rewards"] + 10.0},
        ),
        implies(
            "twice the differences of the rewards are twice the loss, and yours is not: nothing is divided by here",
            lambda inputs: {"rewards": 2 * inputs["rewards"]},
            lambda result, inputs: 2 * result,
        ),
        unmoved_by(
            "log-probabilities count as differences alone; a number added to both moves the loss",
            lambda inputs: {name: inputs[name] + 3.0 for name in ("log_probs", "old_log_probs")},
        ),
    ),
    mistakes=(
        (
            _surrogate(advantage=lambda r: r),
            "the mean of the group is not subtracted: what is better than the others?",
        ),
        (
            _surrogate(advantage=lambda r: (r - r.mean()) / (r.std() + 1e-8)),
            "you divide by the standard deviation of the group. Here the rewards are only centred.",
        ),
        (
            _surrogate(ratio=lambda d: np.exp(d.sum(axis=1, keepdims=True))),
            "this is the ratio of the whole trajectory. Each step has its own, and its own clip.",
        ),
        (
            _surrogate(ratio=lambda d: np.exp(d.mean(axis=1, keepdims=True))),
            "you average the log-ratios of a trajectory: each step has its own ratio.",
        ),
        (
            lambda log_probs, old_log_probs, rewards, clip_param: _surrogate(ratio=lambda quotient: quotient)(
                log_probs / old_log_probs, 0.0, rewards, clip_param
            ),
            "you divide the logarithms. The ratio is of the densities: their logarithms are subtracted.",
        ),
        (_surrogate(least=np.maximum), "the larger of the two is no pessimist: take the smaller."),
        (_surrogate(least=lambda free, clipped: clipped), "the clipped term alone: where does a step come back?"),
        (_surrogate(least=lambda free, clipped: free), "the clip is never used."),
        (_surrogate(sign=1.0), "the sign is turned around: a loss is made smaller."),
        (
            _surrogate(reduce=lambda x: x.sum(axis=1).mean()),
            "you add up the steps of a trajectory: the mean is over steps as well.",
        ),
    ),
)

# Diagnosis lab: three runs with the same reward -------------------------------------------------------------------

diffusion_red = Choice(
    name="diffusion_red",
    right="b",
    explanations={
        "a": "It is paid most, and its loss is the smallest. What does the witness read, and how far is it from "
        "home?",
        "b": "Nothing holds it: without a price the loss is 0, and it is the distance that tells. It draws one thing "
        "again and again, which the scorer takes for a three.",
        "c": "What it is paid for it makes likelier, and a lot: its reward says so, and so did the test.",
    },
)

diffusion_blue = Choice(
    name="diffusion_blue",
    right="c",
    explanations={
        "a": "Loss, clip and distance are near Green's, and its reward goes nowhere. Is the task too hard, or does "
        "the reward go to somebody else?",
        "b": "A run without a leash pays nothing for its distance. What is this loss made of?",
        "c": "Each trajectory is paid for the picture of another one. Ratio, clip and leash know nothing of rewards, "
        "so they look as they should; only the test asks whether what was paid for became likelier.",
    },
)

diffusion_green = Choice(
    name="diffusion_green",
    right="a",
    explanations={
        "a": "Its loss never comes down to 0, and a fifth of its steps are clipped. But the loss is the price of the "
        "distance, which shrinks; the witness reads threes, and they differ as those of the artist who was asked for "
        "a three do.",
        "b": "Without a leash the loss would be 0 and the distance would grow. What does this distance do?",
        "c": "Its reward rises, and what was paid for becomes likelier in each batch. Where is the mistake?",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

diffusion_quiz_density = Choice(
    name="diffusion_quiz_density",
    right="b",
    explanations={
        "a": "That number is of a picture spoilt in one way by chance. What did the estimate do from one way to the "
        "next?",
        "b": "Each step is a Gaussian whose mean and width are known. A finished picture can be reached on countless "
        "ways, and their sum is not to be had.",
        "c": "The ODE has a density that can be integrated, at a price; this policy draws by another law, with noise "
        "at each step, and a ratio is of the law that drew.",
    },
)

diffusion_quiz_mean = Choice(
    name="diffusion_quiz_mean",
    right="c",
    explanations={
        "a": "A factor inside a logarithm's difference stands in the exponent of the ratio. Does the clip still bite "
        "at the same place?",
        "b": "The gradient of the reward's part is D times smaller. What became of the gradient of the exact KL?",
        "c": "ε = 0.2 means a factor of 1.2 for a pixel, and so 1.2 to the power of D for the picture; and beside an "
        "exact KL in nats the reward's part has become D times smaller.",
    },
)

diffusion_quiz_eta = Choice(
    name="diffusion_quiz_eta",
    right="a",
    explanations={
        "a": "With less noise the same change of a guess is more standard deviations: a dearer change, and a smaller "
        "one that the clip allows. And there is less to choose from: one start leads to fewer pictures.",
        "b": "The Gaussians become narrower. Is the same distance of two means then more, or less?",
        "c": "The floor keeps each density finite, so η near 0 can be trained with; but not at no cost.",
    },
)
