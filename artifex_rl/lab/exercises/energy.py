"""Exercises of notebook 12. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.generative.energy import langevin_step, tilt_energy
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import holds, implies, unmoved_by
from artifex_rl.rl.distributions import Categorical, DiagonalGaussian
from artifex_rl.rl.returns import compute_group_advantages

# Exercise 1: the tilt --------------------------------------------------------------------------------------------


@jax.jit
def _tilted(probabilities, rewards, beta):
    """The library's energy, as a law."""
    return jnp.exp(Categorical(-tilt_energy(-jnp.log(probabilities), rewards, beta)).log_probs)


def _draw_tilt(rng, size):
    """Probabilities that add up to 1; in some cases a β so small that exp(r/β) is more than a float can hold."""
    shares = rng.integers(1, 10, size)
    return {
        "probabilities": shares / shares.sum(),
        "rewards": tenths(rng, size),
        "beta": float(pick(rng, 0.004, 0.5, 2.0, 4.0)),
    }


def _normal(weights):
    return weights / weights.sum()


def _softmax(logits):
    return _normal(np.exp(logits - logits.max()))


tilted_law = Exercise(
    name="tilted_law",
    title="The exact answer",
    minutes=6,
    difficulty="easy",
    task="""
A reference has the `probabilities` `(K,)` of K answers, and each answer has a reward, `rewards` `(K,)`.

Write `tilted_law`, the probabilities `(K,)` of $\\pi^* \\propto \\pi_\\text{ref}\\,e^{r/\\beta}$. Mind that
$\\beta$ may be so small that $e^{r/\\beta}$ is more than a number can hold.
""",
    solution="""
def tilted_law(probabilities, rewards, beta):
    weights = probabilities * np.exp((rewards - rewards.max()) / beta)
    return weights / weights.sum()
""",
    remark="""
The best reward may be subtracted because a constant in all rewards is a constant factor in all weights, and the sum
takes it out again. It is the same reason for which a baseline changes no policy gradient.
""",
    reference=_tilted,
    draw=_draw_tilt,
    axes=("answer",),
    properties=(
        holds(
            "the probabilities do not add up to 1",
            lambda result, inputs: np.isclose(result.sum(), 1, atol=1e-3),
        ),
        implies(
            "where all rewards are equal nothing is to be won, and answer {0} has another probability than before",
            lambda inputs: {"rewards": 0 * inputs["rewards"] + 0.5},
            lambda result, inputs: inputs["probabilities"],
        ),
        unmoved_by(
            "one more reward for every answer moves answer {0}: only differences count",
            lambda inputs: {"rewards": inputs["rewards"] + 1.0},
        ),
        unmoved_by(
            "twice the rewards and twice the beta move answer {0}: only their ratio counts",
            lambda inputs: {"rewards": 2 * inputs["rewards"], "beta": 2 * inputs["beta"]},
        ),
    ),
    mistakes=(
        (
            lambda probabilities, rewards, beta: _softmax(np.log(probabilities) + rewards * beta),
            "beta multiplies the rewards here. It is the price of a nat: where it is high, little may move.",
        ),
        (
            lambda probabilities, rewards, beta: probabilities * np.exp(rewards / beta),
            "these are weights. Divide them by their sum.",
        ),
        (
            lambda probabilities, rewards, beta: _softmax(rewards / beta),
            "where is the reference? An answer that it hardly ever gives is dear.",
        ),
        (
            lambda probabilities, rewards, beta: _softmax((np.log(probabilities) + rewards) / beta),
            "beta divides the reward alone. What you have is a temperature: it sharpens the reference, too.",
        ),
        (
            lambda probabilities, rewards, beta: _softmax(np.log(probabilities) - rewards / beta),
            "the rewards count as costs: the sign in the exponent.",
        ),
    ),
)

# Exercise 2: a step has a density --------------------------------------------------------------------------------


@jax.jit
def _langevin(before, after, slopes, step_size, temperature):
    """The library's step, on a plane with these slopes, and the library's Gaussian."""
    mean, std = langevin_step(lambda x: jnp.sum(slopes * x, axis=1), before, step_size, temperature)
    return DiagonalGaussian(mean, jnp.log(std)[None]).log_prob(after)


def _draw_step(rng, size):
    """Two or three dimensions, so that a mean over them is seen."""
    shape = size, int(pick(rng, 2, 3))
    return {
        "before": tenths(rng, *shape),
        "after": tenths(rng, *shape),
        "slopes": tenths(rng, *shape),
        "step_size": float(pick(rng, 0.2, 0.5, 0.8)),
        "temperature": float(pick(rng, 0.5, 2.0, 3.0)),
    }


def _gauss(
    mean=lambda x, slope, eta: x - eta * slope, variance=lambda eta, tau: 2 * eta * tau, over=np.sum, log=True
):
    """A Gaussian with something of it put together in some wrong way."""

    def log_prob(before, after, slopes, step_size, temperature):
        width = variance(step_size, temperature)
        squares = (after - mean(before, slopes, step_size)) ** 2 / (2 * width)
        return over(-squares - (0.5 * np.log(2 * np.pi * width) if log else 0.0), axis=1)

    return log_prob


def _at_the_mean(inputs):
    return {"after": inputs["before"] - inputs["step_size"] * inputs["slopes"]}


langevin_log_prob = Exercise(
    name="langevin_log_prob",
    title="A step has a density",
    minutes=10,
    difficulty="medium",
    task="""
A step of Langevin dynamics goes from `before` `(B, D)` to `after` `(B, D)`, and the energy has the gradient `slopes`
`(B, D)` at `before`. It was drawn from $N(x - \\eta\\,\\nabla E(x),\\ 2\\,\\eta\\,\\tau\\,I)$, with `step_size`
$\\eta$ and `temperature` $\\tau$.

Write `langevin_log_prob`, the log-density of each step, `(B,)`.
""",
    solution="""
def langevin_log_prob(before, after, slopes, step_size, temperature):
    variance = 2 * step_size * temperature
    distance = after - (before - step_size * slopes)
    return (-(distance**2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)).sum(axis=1)
""",
    remark="""
The weights of the energy enter through the slope alone. A policy gradient of a walk is therefore a derivative of a
derivative, and a network of ReLUs, whose slope does not bend, would hardly learn.
""",
    reference=_langevin,
    draw=_draw_step,
    axes=("walk",),
    properties=(
        implies(
            "walk {0} moved exactly down the slope: the log-density is then highest, and the variance alone counts",
            _at_the_mean,
            lambda result, inputs: (
                -0.5 * inputs["before"].shape[1] * np.log(4 * np.pi * inputs["step_size"] * inputs["temperature"])
            ),
        ),
        implies(
            "with every dimension twice, walk {0} has not twice the log-density",
            lambda inputs: {name: np.tile(inputs[name], 2) for name in ("before", "after", "slopes")},
            lambda result, inputs: 2 * result,
        ),
        unmoved_by(
            "walk {0} elsewhere, by the same step and with the same slope, has another log-density",
            lambda inputs: {name: inputs[name] + 1.0 for name in ("before", "after")},
        ),
    ),
    mistakes=(
        (
            _gauss(mean=lambda x, slope, eta: x + eta * slope),
            "a walk goes downhill, against the slope.",
        ),
        (
            _gauss(variance=lambda eta, tau: (2 * eta * tau) ** 2),
            "two times step size times temperature is the variance. You took it for the standard deviation.",
        ),
        (
            _gauss(log=False),
            "a density integrates to one: the term that is there without any distance is missing.",
        ),
        (
            _gauss(over=np.mean),
            "dimensions are independent: their log-densities add up. A mean is what a wrong ratio is made of.",
        ),
        (
            _gauss(variance=lambda eta, tau: 2 * eta),
            "the temperature is missing: it says how much noise there is.",
        ),
        (
            _gauss(mean=lambda x, slope, eta: -eta * slope),
            "a step sets out from where the walk was: before is missing in the mean.",
        ),
        (
            _gauss(mean=lambda x, slope, eta: x),
            "the slope is missing. Without it nothing would be learnt about the energy.",
        ),
    ),
)

# Exercise 3: a gradient without the normaliser -------------------------------------------------------------------


@jax.jit
def _gradient(slopes, rewards, log_ratios, beta, temperature):
    """The library's advantages, of one group, against the slopes."""
    advantages = compute_group_advantages(rewards - beta * log_ratios, len(rewards), "none")
    return -(advantages @ slopes) / (len(rewards) * temperature)


def _draw_gradient(rng, size):
    """Some weights more than samples, in some cases as many."""
    return {
        "slopes": tenths(rng, size, int(pick(rng, 2, 3))),
        "rewards": tenths(rng, size),
        "log_ratios": tenths(rng, size),
        "beta": float(pick(rng, 0.3, 0.5, 2.0)),
        "temperature": float(pick(rng, 0.5, 2.0)),
    }


def _climb(
    paid=lambda r, d, beta: r - beta * d,
    centre=lambda x: x - x.mean(),
    scale=lambda size, tau: -1 / size / tau,
):
    """The gradient with something of it put together in some wrong way."""

    def gradient(slopes, rewards, log_ratios, beta, temperature):
        return scale(len(rewards), temperature) * centre(paid(rewards, log_ratios, beta)) @ slopes

    return gradient


boltzmann_gradient = Exercise(
    name="boltzmann_gradient",
    title="A gradient without the normaliser",
    minutes=15,
    difficulty="harder",
    task="""
B samples of $\\pi \\propto e^{-E/\\tau}$ have `rewards` `(B,)` and `log_ratios` `(B,)`: $\\log\\pi(x_i) -
\\log\\pi_\\text{ref}(x_i)$, known but for a constant. `slopes` `(B, P)` are the derivatives of $E(x_i)$ by P weights.

Write `boltzmann_gradient`, the estimate `(P,)` of the gradient of $\\mathbb E[r] - \\beta\\,\\text{KL}$ by the
weights: the mean of $A_i\\,\\nabla\\log\\pi(x_i)$, where $A_i$ is `rewards` − $\\beta$ · `log_ratios` less its mean
over the samples. The normaliser of $\\pi$ is not to be had. You will not need it.
""",
    solution="""
def boltzmann_gradient(slopes, rewards, log_ratios, beta, temperature):
    paid = rewards - beta * log_ratios
    advantages = paid - paid.mean()
    return -(advantages @ slopes) / (len(rewards) * temperature)
""",
    remark="""
It is minus the covariance of what is paid with the slopes. A constant in the rewards, one in the log-ratios, a vector
that all slopes share: a covariance sees none of them. The gradient of the log-normaliser is such a vector.
""",
    reference=_gradient,
    draw=_draw_gradient,
    axes=("weight",),
    properties=(
        unmoved_by(
            "one more reward for every sample moves weight {0}: only differences count",
            lambda inputs: {"rewards": inputs["rewards"] + 1.0},
        ),
        unmoved_by(
            "a constant in all log_ratios moves weight {0}: that is the normaliser, and it is not known",
            lambda inputs: {"log_ratios": inputs["log_ratios"] + 3.0},
        ),
        unmoved_by(
            "a slope that all samples share moves weight {0}: it lifts the whole landscape, and no law",
            lambda inputs: {"slopes": inputs["slopes"] + 1.0},
        ),
        unmoved_by(
            "the same samples twice over give weight {0} another gradient: it is to be a mean",
            lambda inputs: {name: np.concatenate([inputs[name]] * 2) for name in ("slopes", "rewards", "log_ratios")},
        ),
    ),
    mistakes=(
        (
            _climb(centre=lambda x: x),
            "nothing is subtracted: then the normaliser's own gradient is missing, and it does not cancel.",
        ),
        (
            _climb(scale=lambda size, tau: 1 / size / tau),
            "a higher energy is a lower probability: the sign.",
        ),
        (
            _climb(scale=lambda size, tau: -1 / size),
            "the log-probability is the energy over the temperature, with a minus.",
        ),
        (
            _climb(paid=lambda r, d, beta: r + beta * d),
            "the penalty is paid out. Going far costs something.",
        ),
        (
            _climb(paid=lambda r, d, beta: r),
            "the penalty is missing: beta and the log_ratios are never looked at.",
        ),
        (
            _climb(scale=lambda size, tau: -1 / tau),
            "this is a sum over the samples. A mean was asked for.",
        ),
        (
            _climb(paid=lambda r, d, beta: r / beta - d),
            "rewards divided by beta belong to the tilt's energy. In the gradient beta weighs the penalty.",
        ),
    ),
)

# Diagnosis lab: three runs with the same reward -------------------------------------------------------------------

energy_red = Choice(
    name="energy_red",
    right="a",
    explanations={
        "a": "Its reward stops rising early, and far below what the others are paid. That is where the tilt is: a "
        "policy that has arrived does not move. All kinds of drawings that the tilt has are there.",
        "b": "Without a leash the reward goes on to the best there is. Where did this one stop?",
        "c": "Count the kinds of drawings: is one missing that the tilt has?",
    },
)

energy_blue = Choice(
    name="energy_blue",
    right="b",
    explanations={
        "a": "It is paid all that can be paid, and both witnesses agree about every drawing. How many drawings are "
        "there?",
        "b": "Every drawing is the same perfect zero. The witnesses agree about it, of course; the tilt of no beta "
        "above 0 looks like that.",
        "c": "It has lost nearly all kinds. But was there anything that could have held them?",
    },
)

energy_green = Choice(
    name="energy_green",
    right="c",
    explanations={
        "a": "Its reward is close to that of the tilt, and so is its KL, nearly. Compare what it draws.",
        "b": "Its penalty is paid and does pull: the reward stays below what the free run gets.",
        "c": "The first strides were so long that one kind of drawing was gone before the penalty could speak. What "
        "is never drawn is never paid, and no gradient brings it back soon.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

energy_quiz_ratio = Choice(
    name="energy_quiz_ratio",
    right="c",
    explanations={
        "a": "Twice the reward alone would do that. What happens to r divided by beta?",
        "b": "Twice the beta alone would do that. What happens to r divided by beta?",
        "c": "The tilt knows r divided by beta and nothing else of the two.",
    },
)

energy_quiz_temperature = Choice(
    name="energy_quiz_temperature",
    right="a",
    explanations={
        "a": "The reference and the reward are both taken to the power of two: deep valleys become deeper, paid for "
        "or not.",
        "b": "Half the beta would change the reward's part alone. What does the temperature divide?",
        "c": "At a lower temperature every step has less noise, and the walks settle lower. Is that no change?",
    },
)

energy_quiz_lost = Choice(
    name="energy_quiz_lost",
    right="b",
    explanations={
        "a": "A learning rate multiplies what there is. What is the gradient of something that no sample shows?",
        "b": "The objective would gain much by ones; the estimate of its gradient is made of samples, and there are "
        "none. Smaller strides from the start, or walks that begin in the reference.",
        "c": "Then the reward would pull harder still, away from home. Were the ones lost for want of reward?",
    },
)
