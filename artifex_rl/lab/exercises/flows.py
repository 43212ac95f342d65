"""Exercises of notebook 10. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.generative.flow import compute_flow_score, flow_step
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import implies, unmoved_by
from artifex_rl.rl.denoising import DenoisingSteps

# Exercise 1: where is the data? -----------------------------------------------------------------------------------


def _draw_score(rng, size):
    """Samples of different times, 0 among them."""
    return {"x": tenths(rng, size), "velocity": tenths(rng, size), "time": rng.integers(0, 10, size) / 10}


flow_score = Exercise(
    name="flow_score",
    title="The score, from the velocity",
    minutes=6,
    difficulty="easy",
    task="""
On the way from noise to data stands $x_t = (1 - t)\\,\\text{noise} + t\\,\\text{data}$, and the network says what
velocity it expects, $v = \\text{data} - \\text{noise}$. So it also says what noise it expects; solve for it.

Write `flow_score`, $\\nabla \\log p_t(x) = -\\,\\text{noise} / (1 - t)$ with that expected noise, for `x`, `velocity`
and `time` of `(B,)`. Times lie in $[0, 1)$.
""",
    solution="""
def flow_score(x, velocity, time):
    noise = x - time * velocity
    return -noise / (1 - time)
""",
    remark="""
A score is the expected noise over minus its standard deviation (Tweedie's formula, turned around). That a velocity
knows the score is what makes a flow trainable by reward: the SDE needs it, and nothing new has to be learnt.
""",
    reference=jax.jit(lambda x, velocity, time: compute_flow_score(velocity, x, time)),
    draw=_draw_score,
    axes=("sample",),
    properties=(
        implies(
            "at time 0 all is noise and the score is −x, and that of sample {0} is not",
            lambda inputs: {"time": 0 * inputs["time"]},
            lambda result, inputs: -inputs["x"],
        ),
        implies(
            "where x is t times the velocity there is no noise, and the score of sample {0} is not 0",
            lambda inputs: {"x": inputs["time"] * inputs["velocity"]},
            lambda result, inputs: 0 * result,
        ),
    ),
    mistakes=(
        (
            lambda x, velocity, time: (x - time * velocity) / (1 - time),
            "the sign: a score points to where the data is, and so against the noise.",
        ),
        (
            lambda x, velocity, time: -(x - time * velocity),
            "this is minus the noise. A score is that over its standard deviation.",
        ),
        (
            lambda x, velocity, time: -(x - time * velocity) / (1 - time) ** 2,
            "you divide by the variance. The noise has a deviation of 1, and x holds 1 − t of it.",
        ),
        (
            lambda x, velocity, time: -x / (1 - time),
            "not all of x is noise. What does the velocity say of it?",
        ),
        (
            lambda x, velocity, time: -(x - velocity) / (1 - time),
            "at time t the data is only t times in x. Solve the two equations once more.",
        ),
        (
            lambda x, velocity, time: -(x - (1 - time) * velocity) / (1 - time),
            "x plus 1 − t velocities would be the data, and x less t velocities is the noise.",
        ),
    ),
)

# Exercise 2: noise, and what takes it back ------------------------------------------------------------------------


@jax.jit
def _noisy_mean(x, velocity, time, duration, noise_level):
    return flow_step(x, velocity, time, duration, noise_level)[0]


def _draw_step(rng, size):
    return {
        "x": tenths(rng, size),
        "velocity": tenths(rng, size),
        "time": float(pick(rng, 0.2, 0.4, 0.6, 0.8)),
        "duration": float(pick(rng, 0.1, 0.2)),
        "noise_level": float(pick(rng, 0.5, 1.5, 2.0)),
    }


def _mean(rate=lambda a, t: a**2 * (1 - t) / t, factor=0.5, moved=1.0):
    """A mean of the step with something wrong in it."""

    def wrong(x, velocity, time, duration, noise_level):
        score = -(x - time * velocity) / (1 - time)
        return x + duration * (moved * velocity + factor * rate(noise_level, time) * score)

    return wrong


noisy_mean = Exercise(
    name="noisy_mean",
    title="Noise, and what takes it back",
    minutes=10,
    difficulty="medium",
    task="""
A noisy step goes to $x + \\Delta\\,[\\,v + \\tfrac12 g^2\\,\\nabla \\log p_t(x)\\,]$ in the mean, with
$g = a\\sqrt{(1 - t)/t}$, and adds noise of the standard deviation $g\\sqrt\\Delta$. Without the term of the score the
noise would stay, and at every later time the samples would be spread too widely.

Write `noisy_mean`, the mean alone, for `x` and `velocity` of `(B,)`; `time` $t \\geq \\Delta$, `duration`
$\\Delta$ and `noise_level` $a$ are numbers. You may use your `flow_score`.
""",
    solution="""
def noisy_mean(x, velocity, time, duration, noise_level):
    score = -(x - time * velocity) / (1 - time)
    variance_rate = noise_level**2 * (1 - time) / time
    return x + duration * (velocity + variance_rate / 2 * score)
""",
    remark="""
1 − t cancels: the drift is $v - \\tfrac12 a^2 (x - t v)/t$, which is harmless at the data and has no bound at the
noise. So in its first step the library puts Δ for the t below the line.
""",
    reference=_noisy_mean,
    draw=_draw_step,
    axes=("sample",),
    properties=(
        implies(
            "without noise a step is Euler's, and that of sample {0} is not",
            lambda inputs: {"noise_level": 0.0},
            lambda result, inputs: inputs["x"] + inputs["duration"] * inputs["velocity"],
        ),
        implies(
            "where x is t times the velocity the score is 0 and the step is Euler's, and that of sample {0} is not",
            lambda inputs: {"x": inputs["time"] * inputs["velocity"]},
            lambda result, inputs: (inputs["time"] + inputs["duration"]) * inputs["velocity"],
        ),
        implies(
            "a step of no duration leaves x where it is, and sample {0} has moved",
            lambda inputs: {"duration": 0.0},
            lambda result, inputs: inputs["x"],
        ),
        implies(
            "twice the noise level takes back four times as much, and that of sample {0} does not",
            lambda inputs: {"noise_level": 2 * inputs["noise_level"]},
            lambda result, inputs: 4 * result - 3 * (inputs["x"] + inputs["duration"] * inputs["velocity"]),
        ),
    ),
    mistakes=(
        (
            _mean(factor=0.0),
            "the term of the score is missing: what the noise spreads is never taken back.",
        ),
        (
            _mean(factor=-0.5),
            "the sign: the score is added, it points to where the data is.",
        ),
        (
            _mean(factor=1.0),
            "half of g² is enough. All of it would be the SDE that runs the other way.",
        ),
        (
            _mean(rate=lambda a, t: a * np.sqrt((1 - t) / t)),
            "you take g, and the drift has its square.",
        ),
        (
            _mean(rate=lambda a, t: a**2 * t / (1 - t)),
            "g is large near the noise and 0 at the data: which of t and 1 − t is below the line?",
        ),
        (
            _mean(rate=lambda a, t: a**2),
            "g depends on the time as well, not on the noise level alone.",
        ),
        (
            lambda x, velocity, time, duration, noise_level: _mean()(x, velocity, time, 1.0, noise_level),
            "a drift is a speed. How long does the step last?",
        ),
        (
            _mean(moved=0.0),
            "where has the velocity gone? The score is a correction of it.",
        ),
    ),
)

# Exercise 3: what a path is worth ---------------------------------------------------------------------------------


@jax.jit
def _log_probs(path, means, stds):
    log_std = jnp.broadcast_to(jnp.log(stds)[:, None], means.shape[1:])
    return DenoisingSteps(means, log_std, event_ndim=1).log_prob(path)


def _draw_path(rng, size):
    """One to three steps, one to three pixels."""
    steps, pixels = int(pick(rng, 1, 2, 3)), int(pick(rng, 2, 3))
    return {
        "path": tenths(rng, size, steps + 1, pixels, low=-1.0, high=1.0),
        "means": tenths(rng, size, steps, pixels, low=-1.0, high=1.0),
        "stds": rng.choice([0.3, 0.5, 0.8, 1.5, 2.0], steps),
    }


def _density(over=np.sum, square=2, log_std=1.0, constant=1.0, half=0.5, arrived=lambda path: path[:, 1:]):
    """A log-probability with something wrong in it."""

    def wrong(path, means, stds):
        stds = np.asarray(stds)[:, None]
        each = -half * (arrived(path) - means) ** 2 / stds**square
        return over(each - log_std * np.log(stds) - constant * np.log(2 * np.pi) / 2, axis=-1)

    return wrong


def _doubled(inputs):
    return {name: np.concatenate([inputs[name]] * 2, axis=2) for name in ("path", "means")}


def _arrived(inputs):
    """Every step went exactly to its mean."""
    return {"path": np.concatenate([inputs["path"][:, :1], inputs["means"]], axis=1)}


path_log_probs = Exercise(
    name="path_log_probs",
    title="What the steps of a path are worth",
    minutes=12,
    difficulty="harder",
    task="""
A picture has no density that could be computed; each step of the path to it does. `path` is `(B, T + 1, D)`, the
points of B paths from the noise on; step k went from point k to point k + 1. `means` is `(B, T, D)`, where each
step was to go, and `stds` is `(T,)`, the standard deviations of the steps, the same for all D pixels.

Write `path_log_probs`, the log-probability $\\log \\mathcal N(x_{k+1};\\, \\mu_k,\\, \\sigma_k^2 I)$ of every step,
`(B, T)`. Pixels are independent.
""",
    solution="""
def path_log_probs(path, means, stds):
    stds = stds[:, None]
    z = (path[:, 1:] - means) / stds
    each = -(z**2) / 2 - np.log(stds) - np.log(2 * np.pi) / 2
    return each.sum(axis=-1)
""",
    remark="""
Sums over pixels are large: a mean that is off by a hundredth of a standard deviation in each of a million pixels is a
KL of 50 nats. That is a reason to go in small steps; it is none to call a mean a log-probability.
""",
    reference=_log_probs,
    draw=_draw_path,
    axes=("sample", "step"),
    properties=(
        implies(
            "the same pixels twice over are twice as many nats, and those of sample {0}, step {1} are not: densities "
            "of independent pixels multiply",
            _doubled,
            lambda result, inputs: 2 * result,
        ),
        implies(
            "a step right to its mean is worth −log σ less a constant for every pixel, and that of sample {0}, step "
            "{1} is not",
            _arrived,
            lambda result, inputs: (
                -inputs["means"].shape[2]
                * np.broadcast_to(np.log(inputs["stds"]) + np.log(2 * np.pi) / 2, result.shape)
            ),
        ),
        unmoved_by(
            "the last point of a path counts for the last step, and sample {0}, step {1} moved with the first point: "
            "a step is judged by where it went",
            lambda inputs: {"path": np.concatenate([inputs["path"][:, :1] + 1.0, inputs["path"][:, 1:]], axis=1)},
        ),
    ),
    mistakes=(
        (
            _density(over=np.mean),
            "a mean over the pixels: the whole picture is then worth what one pixel is.",
        ),
        (
            _density(arrived=lambda path: path[:, :-1]),
            "you look at where each step began. Where did it go?",
        ),
        (
            _density(log_std=0.0),
            "a narrow Gaussian is high: the standard deviation stands before the exponential, too.",
        ),
        (
            _density(square=1),
            "the distance is measured in standard deviations, and then squared.",
        ),
        (
            _density(half=1.0),
            "the exponent of a Gaussian has a half in it.",
        ),
        (
            _density(constant=0.0),
            "the constant with 2π is missing. It cancels in ratios; a log-probability has it.",
        ),
        (
            _density(log_std=2.0),
            "the logarithm of the variance has a half before it: you count it twice.",
        ),
    ),
)

# Diagnosis lab: three runs that were paid for fives ---------------------------------------------------------------

flow_red = Choice(
    name="flow_red",
    right="a",
    explanations={
        "a": "Its reward rises more slowly and is the lowest, and its loss goes up: the price of a leash that holds. "
        "What it learnt is in the velocities, and the ODE draws it.",
        "b": "Without a leash the loss is 0. What is this one made of?",
        "c": "The judge reads what its ODE draws. What would be left to complain of?",
    },
)

flow_blue = Choice(
    name="flow_blue",
    right="b",
    explanations={
        "a": "The best reward of all. Who else was asked, and what does the diversity do?",
        "b": "Nothing holds it: the scorer says five to a pattern that nobody else can read, by the SDE and by the "
        "ODE alike. Look at its KL.",
        "c": "Its SDE and its ODE draw the same. It is something else that is wrong with it.",
    },
)

flow_green = Choice(
    name="flow_green",
    right="c",
    explanations={
        "a": "All dials are those of the SDE. Which of the two will you deploy?",
        "b": "It pays for its distance, and the judge reads what its SDE draws.",
        "c": "So much noise in so few steps: the velocities have learnt to steer that noise. Without it they lead "
        "elsewhere, and no dial of the training says so.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

flow_quiz_density = Choice(
    name="flow_quiz_density",
    right="c",
    explanations={
        "a": "The ODE's step is certain: whatever Gaussian you lay over it, the sample sits on its mean. What is the "
        "gradient there?",
        "b": "Fewer steps are larger steps. Are they less certain?",
        "c": "A step that could have gone elsewhere has a density, and what it did can be made likelier. The score "
        "in its drift sees to it that samples are spread as before.",
    },
)

flow_quiz_gap = Choice(
    name="flow_quiz_gap",
    right="b",
    explanations={
        "a": "A leash weighs the distance to the reference. Would a longer one bring SDE and ODE together?",
        "b": "The two have the same marginals where steps are fine enough for the noise. Less noise, or more steps.",
        "c": "The scorer was right about what it saw. It never saw what you deploy.",
    },
)

flow_quiz_mean = Choice(
    name="flow_quiz_mean",
    right="a",
    explanations={
        "a": "The reward's gradient is divided by the number of pixels and the KL's is not: their ratio is what β "
        "sets. Average both or neither, and think of the clip range, too.",
        "b": "With fresh samples every ratio is 1, however it is averaged. What else stands in the loss?",
        "c": "Adam divides by the size of the whole gradient. It cannot tell its two parts apart.",
    },
)
