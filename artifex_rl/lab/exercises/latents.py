"""Exercises of notebook 08. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import numpy as np

from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import holds, implies, unmoved_by
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.returns import compute_td_errors

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)

# Exercise 1: how likely was that move ----------------------------------------------------------------------------


@jax.jit
def _log_prob(actions, mean, log_std):
    """The library's Gaussian."""
    return DiagonalGaussian(mean, log_std).log_prob(actions)


def _draw_moves(rng, size):
    """Never as many moves as numbers in a move, so that the axes cannot be mixed up."""
    width = int(pick(rng, *(width for width in (2, 3, 4) if width != size)))
    actions, mean = tenths(rng, size, width, low=-2.0, high=2.0), tenths(rng, size, width, low=-1.0, high=1.0)
    return {"actions": actions, "mean": mean, "log_std": tenths(rng, width, low=-1.0, high=1.0)}


def _gaussian(density, add=np.sum):
    """`density(distance, log_std)` of each number, put together in some way."""

    def log_prob(actions, mean, log_std):
        return add(density(actions - mean, np.broadcast_to(log_std, actions.shape)), axis=-1)

    return log_prob


gaussian_log_prob = Exercise(
    name="gaussian_log_prob",
    title="How likely was that move?",
    minutes=8,
    difficulty="easy",
    task="""
A walker draws a move of Z independent normal numbers. `actions` and `mean` are `(B, Z)`; `log_std` is `(Z,)`, the
*log* of the standard deviations, the same for every move.

Write `gaussian_log_prob`, the log-density of each whole move, `(B,)`.
""",
    solution="""
def gaussian_log_prob(actions, mean, log_std):
    distance = (actions - mean) / np.exp(log_std)
    each = -0.5 * distance**2 - log_std - 0.5 * np.log(2 * np.pi)
    return each.sum(axis=-1)
""",
    remark="""
Independent numbers: densities multiply, so logs add up. The constant cancels in every ratio; it does not in the
entropy, and it is what a check against the library finds first.
""",
    reference=_log_prob,
    draw=_draw_moves,
    axes=("move",),
    properties=(
        implies(
            "a move that is its mean has the density of the peak, −Σ log std − Z · ½ log 2π, and move {0} has not",
            lambda inputs: {"actions": inputs["mean"]},
            lambda result, inputs: -np.sum(inputs["log_std"] + HALF_LOG_2PI),
        ),
        unmoved_by(
            "actions and means that are moved together are as likely as before, and move {0} is not",
            lambda inputs: {"actions": inputs["actions"] + 1.5, "mean": inputs["mean"] + 1.5},
        ),
        implies(
            "every number of a move twice over is twice the log-density, and that of move {0} is not",
            lambda inputs: {name: np.concatenate([values] * 2, axis=-1) for name, values in inputs.items()},
            lambda result, inputs: 2 * result,
        ),
        implies(
            "twice the distances, and twice the deviations, is Z · log 2 less, and that of move {0} is not",
            lambda inputs: {
                "actions": inputs["mean"] + 2 * (inputs["actions"] - inputs["mean"]),
                "log_std": inputs["log_std"] + np.log(2),
            },
            lambda result, inputs: result - len(inputs["log_std"]) * np.log(2),
        ),
    ),
    mistakes=(
        (
            _gaussian(lambda d, s: -0.5 * (d / np.exp(s)) ** 2 - s - HALF_LOG_2PI, np.mean),
            "this is the mean over the numbers of a move. They are independent: densities multiply, logs add up.",
        ),
        (
            _gaussian(lambda d, s: -0.5 * (d / np.exp(s)) ** 2 - HALF_LOG_2PI),
            "a wide Gaussian is a low one: the log of the deviation is missing.",
        ),
        (
            _gaussian(lambda d, s: -0.5 * (d / np.exp(s)) ** 2 - s),
            "½ log 2π is missing, once for each number of a move.",
        ),
        (
            lambda actions, mean, log_std: _log_prob(actions, mean, log_std) + (actions.shape[-1] - 1) * HALF_LOG_2PI,
            "½ log 2π counts once for each number of a move, and you have it once.",
        ),
        (
            _gaussian(lambda d, s: -0.5 * d**2 / np.exp(s) - s - HALF_LOG_2PI),
            "the distance is divided by the deviation *before* it is squared.",
        ),
        (
            _gaussian(lambda d, s: -((d / np.exp(s)) ** 2) - s - HALF_LOG_2PI),
            "the ½ before the squared distance is missing.",
        ),
        (
            _gaussian(lambda d, s: -0.5 * (d / np.exp(s)) ** 2 + s - HALF_LOG_2PI),
            "a wide Gaussian is a *low* one: look at the sign of the log of the deviation.",
        ),
        (
            lambda actions, mean, log_std: _log_prob(actions, 0 * mean, log_std),
            "the distance is that from the mean, which you never look at.",
        ),
        (
            lambda actions, mean, log_std: np.exp(_log_prob(actions, mean, log_std)),
            "this is the density. Its log was asked for.",
        ),
    ),
)

# Exercise 2: paid for what is won --------------------------------------------------------------------------------


@jax.jit
def _gains(potentials, lengths, gamma, move_cost):
    """The library's TD error with rewards of 0 is γ Φ(s′) − Φ(s)."""
    steps, nowhere = np.zeros(len(lengths)), np.zeros(len(lengths), bool)
    won = compute_td_errors(steps, potentials[:-1], nowhere, gamma, next_values=potentials[1:])
    return won - move_cost * lengths**2


def _draw_walk(rng, size):
    """Potentials in tenths, and moves of which none has the length 1."""
    return {
        "potentials": tenths(rng, size + 1, low=0.0, high=1.0),
        "lengths": tenths(rng, size, low=0.2, high=0.9),
        "gamma": float(pick(rng, 0.5, 0.8, 1.0)),
        "move_cost": float(pick(rng, 0.1, 0.3)),
    }


gain_rewards = Exercise(
    name="gain_rewards",
    title="Paid for what is won",
    minutes=8,
    difficulty="medium",
    task="""
`potentials` is `(T + 1,)`, what each place of a walk is worth, from the start to the end. A move is paid
$\\gamma\\,\\Phi_{t+1} - \\Phi_t$, and costs `move_cost` times the square of its length. `lengths` is `(T,)`.

Write `gain_rewards`, `(T,)`.
""",
    solution="""
def gain_rewards(potentials, lengths, gamma, move_cost):
    return gamma * potentials[1:] - potentials[:-1] - move_cost * lengths**2
""",
    remark="""
With this γ, the one of the returns, the discounted sum of a walk is $\\gamma^T\\Phi_T - \\Phi_0$, whatever the way:
no detour pays (Ng, Harada & Russell, 1999). It is the TD error of a critic Φ where nothing else is paid.
""",
    reference=_gains,
    draw=_draw_walk,
    properties=(
        implies(
            "moves of length 0 cost nothing; the rewards, each weighted with γ to the power of its step, then add up "
            "to γ^T times the last potential less the first, and yours do not",
            lambda inputs: {"lengths": 0 * inputs["lengths"]},
            lambda result, inputs: inputs["gamma"] * inputs["potentials"][1:] - inputs["potentials"][:-1],
        ),
        implies(
            "where no place is worth anything a move costs move_cost times its squared length, and move {0} does not",
            lambda inputs: {"potentials": 0 * inputs["potentials"]},
            lambda result, inputs: -inputs["move_cost"] * inputs["lengths"] ** 2,
        ),
        implies(
            "twice the price is one price less, and the reward of move {0} is not",
            lambda inputs: {"move_cost": 2 * inputs["move_cost"]},
            lambda result, inputs: result - inputs["move_cost"] * inputs["lengths"] ** 2,
        ),
    ),
    mistakes=(
        (
            lambda potentials, lengths, gamma, move_cost: np.diff(potentials) - move_cost * lengths**2,
            "the place that is reached is discounted, and you never look at gamma.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: gamma * np.diff(potentials) - move_cost * lengths**2,
            "only the place that is reached is discounted: the move starts now.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: (
                potentials[1:] - gamma * potentials[:-1] - move_cost * lengths**2
            ),
            "it is the place that is *reached* which is discounted.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: (
                gamma * potentials[1:] - potentials[:-1] - move_cost * lengths
            ),
            "a move costs the *square* of its length.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: (
                gamma * potentials[1:] - potentials[:-1] + move_cost * lengths**2
            ),
            "moves are to cost something, and you pay for them.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: gamma * potentials[1:] - potentials[:-1],
            "the moves are free.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: (
                np.maximum(gamma * potentials[1:] - potentials[:-1], 0) - move_cost * lengths**2
            ),
            "losses are forgiven: then it pays to lose and to win again.",
        ),
        (
            lambda potentials, lengths, gamma, move_cost: gamma * potentials[1:] - move_cost * lengths**2,
            "this pays for *being* at a good place, again and again. The potential of the place left is missing.",
        ),
    ),
)

# Exercise 3: how far the walker has gone -------------------------------------------------------------------------


@jax.jit
def _kl(mean, log_std, old_mean, old_log_std):
    """The library's KL(new ‖ old)."""
    return DiagonalGaussian(mean, log_std).kl(DiagonalGaussian(old_mean, old_log_std))


def _draw_walkers(rng, size):
    """Two walkers in the same states; never as many states as numbers in a move."""
    width = int(pick(rng, *(width for width in (2, 3, 4) if width != size)))
    return {
        "mean": tenths(rng, size, width, low=-1.0, high=1.0),
        "log_std": tenths(rng, width, low=-0.9, high=0.9),
        "old_mean": tenths(rng, size, width, low=-1.0, high=1.0),
        "old_log_std": tenths(rng, width, low=-0.9, high=0.9),
    }


def _divergence(of_each, add=np.sum):
    """`of_each(log(σ_old / σ), σ / σ_old, distance / σ_old)`, put together in some way."""

    def kl(mean, log_std, old_mean, old_log_std):
        wider = np.broadcast_to(old_log_std - log_std, mean.shape)
        return add(of_each(wider, np.exp(-wider), (mean - old_mean) * np.exp(-old_log_std)), axis=-1)

    return kl


gaussian_kl = Exercise(
    name="gaussian_kl",
    title="How far has the walker gone?",
    minutes=12,
    difficulty="harder",
    task="""
Before an update the walker's moves had mean `old_mean` `(B, Z)` and log-deviations `old_log_std` `(Z,)`; now they
have `mean` and `log_std`. For two normal numbers,

$$\\text{KL}(\\text{new}\\,\\|\\,\\text{old}) = \\log\\frac{\\sigma_\\text{old}}{\\sigma}
+ \\frac{\\sigma^2 + (\\mu - \\mu_\\text{old})^2}{2\\,\\sigma_\\text{old}^2} - \\frac12.$$

Write `gaussian_kl`, in nats, for each state: `(B,)`.
""",
    solution="""
def gaussian_kl(mean, log_std, old_mean, old_log_std):
    squares = np.exp(2 * log_std) + (mean - old_mean) ** 2
    each = old_log_std - log_std + squares / (2 * np.exp(2 * old_log_std)) - 0.5
    return each.sum(axis=-1)
""",
    remark="""
It adds up over the numbers of a move, as the log-density does. With equal deviations it is half the squared distance
of the means in units of σ: a walker whose σ shrinks goes *further* in nats with the same step of its weights.
""",
    reference=_kl,
    draw=_draw_walkers,
    axes=("state",),
    properties=(
        implies(
            "a walker that has not changed is 0 nats from itself, and in state {0} yours is not",
            lambda inputs: {"mean": inputs["old_mean"], "log_std": inputs["old_log_std"]},
            lambda result, inputs: 0.0,
        ),
        holds("a KL is never negative, and that of state {0} is", lambda result, inputs: result >= -1e-6),
        unmoved_by(
            "means that are moved together are as far apart as before, and in state {0} yours are not",
            lambda inputs: {name: inputs[name] + 1.5 for name in ("mean", "old_mean")},
        ),
        implies(
            "every number of a move twice over is twice as far, and state {0} is not",
            lambda inputs: {name: np.concatenate([values] * 2, axis=-1) for name, values in inputs.items()},
            lambda result, inputs: 2 * result,
        ),
        implies(
            "with equal deviations it is half the squared distance in units of σ, and in state {0} it is not",
            lambda inputs: {"log_std": inputs["old_log_std"]},
            lambda result, inputs: np.sum(
                0.5 * ((inputs["mean"] - inputs["old_mean"]) / np.exp(inputs["old_log_std"])) ** 2, axis=-1
            ),
        ),
    ),
    mistakes=(
        (
            lambda mean, log_std, old_mean, old_log_std: _kl(old_mean, old_log_std, mean, log_std),
            "this is KL(old ‖ new): the deviations have changed places.",
        ),
        (
            _divergence(lambda wider, ratio, d: wider + 0.5 * (ratio**2 + d**2) - 0.5, np.mean),
            "this is the mean over the numbers of a move. The nats add up.",
        ),
        (
            _divergence(lambda wider, ratio, d: wider + 0.5 * (ratio**2 + d**2)),
            "½ is missing, once for each number of a move: a walker that has not changed is 0 nats from itself.",
        ),
        (
            _divergence(lambda wider, ratio, d: 0.5 * d**2),
            "only the means count here. Deviations change too.",
        ),
        (
            _divergence(lambda wider, ratio, d: -wider + 0.5 * (ratio**2 + d**2) - 0.5),
            "look at the sign of the log: which deviation is above the bar?",
        ),
        (
            _divergence(lambda wider, ratio, d: wider + 0.5 * (ratio + d**2) - 0.5),
            "σ² is the *square* of exp(log_std).",
        ),
        (
            lambda mean, log_std, old_mean, old_log_std: _kl(mean, log_std, 0 * old_mean, old_log_std),
            "the distance is that of the two means, and you never look at the old one.",
        ),
        (
            _divergence(lambda wider, ratio, d: wider + ratio**2 + d**2 - 1),
            "the denominator is 2 σ_old²: the 2 is missing.",
        ),
    ),
)

# Diagnosis lab: three walkers -------------------------------------------------------------------------------------

vae_red = Choice(
    name="vae_red",
    right="a",
    explanations={
        "a": "Most of its samples are clipped because the clip is narrow: a step that moves the mean a little moves "
        "the ratio beyond 5 %. Its KL is the smallest of the three by far, its −log π is its entropy, and the judge "
        "reads what it reaches.",
        "b": "Its pay is what it wins: at most 1. Compare with what it reaches.",
        "c": "The mean of −log π over its own moves is its entropy, as it has to be.",
    },
)

vae_blue = Choice(
    name="vae_blue",
    right="b",
    explanations={
        "a": "It is paid more than there is to win. Where does the rest come from?",
        "b": "A walk can win 1 − P(start), and no more. Whoever is paid more than that wins the same probability "
        "several times over: losses cost it nothing.",
        "c": "Its −log π and its entropy agree.",
    },
)

vae_green = Choice(
    name="vae_green",
    right="c",
    explanations={
        "a": "Few samples are clipped and its KL looks small. Both are said in its own unit. What is its −log π?",
        "b": "It is charged for every loss. What does it believe of its own moves?",
        "c": "The mean over twelve numbers in place of their sum: it believes that it moves a twelfth as far as it "
        "does. The clip of 20 % is then one of nine times, and the KL dial shows a twelfth of the truth.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

vae_quiz_clipped = Choice(
    name="vae_quiz_clipped",
    right="b",
    explanations={
        "a": "The policy is a distribution over what *it* draws. Did it draw the shortened move?",
        "b": "The environment may do with an action what it likes; that is part of the environment. The ratio "
        "compares two policies on what was drawn.",
        "c": "Many moves become the same picture, and nobody knows the density of pictures; nor is it needed.",
    },
)

vae_quiz_gamma = Choice(
    name="vae_quiz_gamma",
    right="c",
    explanations={
        "a": "A discount near 1 looks far ahead. Is there anything far ahead that a gain now does not say already?",
        "b": "With γ = 0 only the last move sees a reward that is paid at the end.",
        "c": "Each move is paid at once for what it wins. Looking ahead adds the noise of later moves and, with γ "
        "near 1 and no end in sight, takes away the hurry: what is not won now is won later.",
    },
)

vae_quiz_dones = Choice(
    name="vae_quiz_dones",
    right="a",
    explanations={
        "a": "Independent pictures are episodes of one step. With zeros the advantage of a picture holds the rewards "
        "of those that happen to stand behind it in the batch.",
        "b": "The encoder is asked once for each picture. When is its episode over?",
        "c": "A truncation needs the value of the place reached. Which place does a picture reach?",
    },
)
