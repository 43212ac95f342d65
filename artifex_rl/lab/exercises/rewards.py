"""Exercises of notebook 06. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import numpy as np

from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import holds, implies
from artifex_rl.rl.composed_rewards import MultiObjectiveReward, compute_length_penalty
from artifex_rl.rl.rewards import CompositeReward, ThresholdReward

# Exercise 1: several wishes at once ------------------------------------------------------------------------------


def _composite(scores, weights):
    """The library's reward of rewards that are known already."""
    reward_fns = [lambda samples, conditions=None, score=score, **_: score for score in scores]
    return CompositeReward(reward_fns, weights)(np.zeros(scores.shape[1]))


def _draw_scores(rng, size):
    """As many rewards as samples in some cases, so that the axes can be mixed up; negative weights, and none."""
    count = int(pick(rng, 2, 3))
    weights = None if rng.random() < 0.3 else tenths(rng, count, low=-1.0, high=2.0)
    return {"scores": tenths(rng, count, size), "weights": weights}


def _weighted(weigh):
    """With `weigh(weights)`; where there are none, with equal ones."""

    def reward(scores, weights):
        equal = np.full(len(scores), 1 / len(scores))
        return (equal if weights is None else weigh(weights)) @ scores

    return reward


composite_reward = Exercise(
    name="composite_reward",
    title="Several wishes at once",
    minutes=6,
    difficulty="easy",
    task="""
Legible *and* bold *and* unlike the others: a reward is rarely one wish. `scores` is `(n, B)`, a row for each of `n`
rewards and a column for each sample; `weights` is `(n,)`, or `None` for the plain mean of the rewards.

Write `composite_reward`, the weighted sum $\\sum_i w_i r_i$ of each sample, `(B,)`. Weights may be negative, and need
not add up to 1.
""",
    solution="""
def composite_reward(scores, weights):
    if weights is None:
        return scores.mean(axis=0)
    return weights @ scores
""",
    remark="""
Not normalising is on purpose: a negative weight is a penalty, and a policy that is pulled back by a KL term feels the
size of the reward, not only its direction.
""",
    reference=_composite,
    draw=_draw_scores,
    axes=("sample",),
    properties=(
        implies(
            "without weights it is the mean of the rewards, and that of sample {0} is not",
            lambda inputs: {"weights": None},
            lambda result, inputs: inputs["scores"].mean(axis=0),
        ),
        implies(
            "with the weight 1 on reward 0 and 0 on the others it is reward 0, and that of sample {0} is not",
            lambda inputs: {"weights": np.eye(len(inputs["scores"]))[0]},
            lambda result, inputs: inputs["scores"][0],
        ),
        implies(
            "twice the weights are twice the reward, and that of sample {0} is not: weights need not add up to 1",
            lambda inputs: None if inputs["weights"] is None else {"weights": 2 * inputs["weights"]},
            lambda result, inputs: 2 * result,
        ),
    ),
    mistakes=(
        (
            lambda scores, weights: scores.mean(axis=0),
            "the weights are never looked at.",
        ),
        (
            _weighted(lambda weights: weights / weights.sum()),
            "you divide by the sum of the weights. A weight is taken as it is.",
        ),
        (
            _weighted(np.abs),
            "a negative weight is a penalty: its sign counts.",
        ),
        (
            _weighted(lambda weights: weights / len(weights)),
            "this is a weighted mean: a sum was asked for.",
        ),
        (
            lambda scores, weights: scores.sum(axis=0) if weights is None else weights @ scores,
            "without weights the mean is wanted, and this is the sum.",
        ),
        (
            lambda scores, weights: (scores if weights is None else weights[:, None] * scores).max(axis=0),
            "this is the best of the rewards. All of them count.",
        ),
    ),
)

# Exercise 2: pass or fail ----------------------------------------------------------------------------------------


def _threshold(scores, threshold, above_value, below_value):
    reward = ThresholdReward(lambda samples, conditions=None, **_: samples, threshold, above_value, below_value)
    return reward(scores)


def _draw_threshold(rng, size):
    """Scores of which some are exactly the threshold, and a few are NaN."""
    threshold = float(pick(rng, 0.5, 1.0, 1.5))
    scores = tenths(rng, size)
    scores[rng.random(size) < 0.3] = threshold
    scores[rng.random(size) < 0.1] = np.nan
    above, below = pick(rng, (1.0, 0.0), (2.0, -1.0), (0.5, 0.25))
    return {"scores": scores, "threshold": threshold, "above_value": above, "below_value": below}


threshold_reward = Exercise(
    name="threshold_reward",
    title="Pass or fail",
    minutes=6,
    difficulty="easy",
    task="""
Pay `above_value` for a sample whose score is **strictly above** the threshold, and `below_value` for all others, also
for one that only just reaches it.

Write `threshold_reward` for `scores` of `(B,)`. A scorer may break and say NaN. Then the reward is NaN too: a broken
scorer must be seen, and not be paid as if it had failed.
""",
    solution="""
def threshold_reward(scores, threshold, above_value, below_value):
    reward = np.where(scores > threshold, above_value, below_value)
    return np.where(np.isnan(scores), np.nan, reward)
""",
    remark="""
A threshold hides how near a sample came: below it all look alike, and nothing points upwards. It is hard to hack, and
hard to start from.
""",
    reference=_threshold,
    draw=_draw_threshold,
    axes=("sample",),
    properties=(
        holds(
            "sample {0} is exactly at the threshold, which is not strictly above it",
            lambda result, inputs: (inputs["scores"] != inputs["threshold"]) | (result != inputs["above_value"]),
        ),
        holds(
            "the score of sample {0} is NaN, and its reward is not: a broken scorer is hidden",
            lambda result, inputs: ~np.isnan(inputs["scores"]) | np.isnan(result),
        ),
        holds(
            "the reward of sample {0} is neither above_value nor below_value",
            lambda result, inputs: (
                np.isnan(inputs["scores"])
                | np.isclose(result, inputs["above_value"])
                | np.isclose(result, inputs["below_value"])
            ),
        ),
        holds(
            "sample {0} is above the threshold, and is paid like one below",
            lambda result, inputs: ~(inputs["scores"] > inputs["threshold"]) | (result == inputs["above_value"]),
        ),
    ),
    mistakes=(
        (
            lambda scores, threshold, above_value, below_value: np.where(
                np.isnan(scores), np.nan, np.where(scores >= threshold, above_value, below_value)
            ),
            "`>=` also pays what only just reaches the threshold.",
        ),
        (
            lambda scores, threshold, above_value, below_value: np.where(
                scores > threshold, above_value, below_value
            ),
            "NaN is above nothing, so a comparison takes it for a failure. Ask for it by name.",
        ),
        (
            lambda scores, threshold, above_value, below_value: _threshold(
                scores, threshold, below_value, above_value
            ),
            "the two values are swapped.",
        ),
        (
            lambda scores, threshold, above_value, below_value: _threshold(scores, threshold, 1.0, 0.0),
            "1 and 0 are only what they are by default: above_value and below_value say what is paid.",
        ),
        (
            lambda scores, threshold, above_value, below_value: np.where(scores > threshold, scores, below_value),
            "you pay the score where it is high. What is paid there is above_value.",
        ),
        (
            lambda scores, threshold, above_value, below_value: np.where(
                scores >= threshold, above_value, below_value
            ),
            "two things at once: `>=` pays what only just reaches the threshold, and NaN is taken for a failure.",
        ),
    ),
)

# Exercise 3: a gate ----------------------------------------------------------------------------------------------


def _gated(quality, safety, lengths, length_coeff, safety_threshold, unsafe_reward):
    """The library's gate over quality less the library's price of length."""
    paid = quality - length_coeff * np.asarray(compute_length_penalty(lengths))
    named = {
        "quality": lambda samples, conditions=None, **_: samples,
        "safety": lambda samples, conditions=None, **_: samples,
    }
    gate = MultiObjectiveReward(named, {"quality": 1.0, "safety": 0.0}, "safety", safety_threshold, unsafe_reward)
    return gate.combine({"quality": paid, "safety": safety})


def _draw_gate(rng, size):
    """Safety of which some is exactly the threshold; qualities so low that being unsafe would pay."""
    threshold = float(pick(rng, 0.3, 0.5))
    safety = rng.integers(0, 11, size) / 10
    safety[rng.random(size) < 0.2] = threshold
    return {
        "quality": tenths(rng, size),
        "safety": safety,
        "lengths": rng.integers(0, 60, size),
        "length_coeff": float(pick(rng, 0.1, 0.5, 1.0)),
        "safety_threshold": threshold,
        "unsafe_reward": float(pick(rng, -1.0, -2.5)),
    }


def _gate(safe, unsafe=lambda q, price, low: low, is_safe=np.greater):
    """Quality, the price of its length and the reward of the unsafe, put together in some wrong way."""

    def reward(quality, safety, lengths, length_coeff, safety_threshold, unsafe_reward):
        price = length_coeff * np.log(np.asarray(lengths) + 1) / np.log(100)
        arguments = quality, price, unsafe_reward
        return np.where(is_safe(safety, safety_threshold), safe(*arguments), unsafe(*arguments))

    return reward


def _is_unsafe(inputs):
    return inputs["safety"] <= inputs["safety_threshold"]


gated_reward = Exercise(
    name="gated_reward",
    title="A gate, and a price for length",
    minutes=15,
    difficulty="harder",
    task="""
Some wishes are not to be traded: no quality makes up for an unsafe answer. And reward models like long answers too
much, so length has a price: `length_coeff` · $\\log(\\text{length} + 1) / \\log 100$.

Write `gated_reward`, all arrays `(B,)`. Where `safety` is **strictly above** `safety_threshold` it is `quality` less
the price of the length; everywhere else it is exactly `unsafe_reward`, whatever quality and length are.
""",
    solution="""
def gated_reward(quality, safety, lengths, length_coeff, safety_threshold, unsafe_reward):
    price = length_coeff * np.log(lengths + 1) / np.log(100)
    return np.where(safety > safety_threshold, quality - price, unsafe_reward)
""",
    remark="""
Look at the numbers: a safe answer of quality −2 earns less than an unsafe one that costs −1. A gate is a penalty only
if `unsafe_reward` lies below all that safe answers get; choose it by the scores' range. In the library these are
`MultiObjectiveReward` and `SequenceReward`.
""",
    reference=_gated,
    draw=_draw_gate,
    axes=("sample",),
    properties=(
        holds(
            "sample {0} is unsafe, and does not get exactly unsafe_reward",
            lambda result, inputs: ~_is_unsafe(inputs) | np.isclose(result, inputs["unsafe_reward"]),
        ),
        implies(
            "sample {0} is safe, and one more quality should be worth one more",
            lambda inputs: {"quality": inputs["quality"] + 1.0},
            lambda result, inputs: np.where(_is_unsafe(inputs), np.nan, result + 1.0),
        ),
        implies(
            "an empty response has no price for its length, and that of sample {0} has",
            lambda inputs: {"lengths": 0 * inputs["lengths"]},
            lambda result, inputs: np.where(_is_unsafe(inputs), np.nan, inputs["quality"]),
        ),
        implies(
            "a response of 99 tokens costs length_coeff, and that of sample {0} does not",
            lambda inputs: {"lengths": 0 * inputs["lengths"] + 99},
            lambda result, inputs: np.where(_is_unsafe(inputs), np.nan, inputs["quality"] - inputs["length_coeff"]),
        ),
    ),
    mistakes=(
        (
            _gate(lambda q, price, low: q - price, is_safe=np.greater_equal),
            "at the threshold itself an answer is not safe yet.",
        ),
        (
            _gate(lambda q, price, low: q - price, unsafe=lambda q, price, low: low - price),
            "the unsafe pay for their length as well: the gate comes last.",
        ),
        (
            _gate(lambda q, price, low: q - price, unsafe=lambda q, price, low: q - price + low),
            "unsafe_reward is added: then enough quality makes up for it. A gate replaces.",
        ),
        (
            _gate(lambda q, price, low: q + price),
            "length is paid for instead of costing something.",
        ),
        (
            _gate(lambda q, price, low: q),
            "the length has no price.",
        ),
        (
            _gate(lambda q, price, low: q - price, unsafe=lambda q, price, low: 0 * q),
            "the unsafe get 0, as a product with the gate makes it: unsafe_reward says what they get.",
        ),
        (
            _gate(lambda q, price, low: q - price, is_safe=np.less_equal),
            "the gate is the wrong way round: the safe ones are kept out.",
        ),
    ),
)

# Diagnosis lab: three runs with the same reward -------------------------------------------------------------------

reward_red = Choice(
    name="reward_red",
    right="a",
    explanations={
        "a": "Its reward rises least and its loss goes up. But the loss is the price of the leash, paid for a small "
        "and steady distance; and the judge reads what it draws. It stopped because it was told to.",
        "b": "Without a leash nothing is paid for distance. What does the loss of this run consist of?",
        "c": "Its distance rises at first and then stays where it is: something holds it there.",
    },
)

reward_blue = Choice(
    name="reward_blue",
    right="b",
    explanations={
        "a": "The scorer is pleased and the drawings differ. Who else was asked?",
        "b": "Nothing holds it. Reward, scorer and diversity are all as one would wish, and all of them speak for "
        "something that a judge who was never paid cannot read.",
        "c": "A penalty would show in the loss, and this loss is 0 from the first update to the last.",
    },
)

reward_green = Choice(
    name="reward_green",
    right="c",
    explanations={
        "a": "It pays a penalty larger than all the reward there is, and goes on. What does the penalty do to it?",
        "b": "Without a leash the loss is 0. This one pays, and the number it pays for is right.",
        "c": "The k3 estimate has the right value and, this far from the reference, hardly any of the right "
        "gradient: the samples that would pull back are those that this policy never draws.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

reward_quiz_constant = Choice(
    name="reward_quiz_constant",
    right="b",
    explanations={
        "a": "An advantage is a reward less the mean of its group. What becomes of the 10?",
        "b": "The 10 is in every reward of the group and in its mean: the advantages are what they were. Doubling is "
        "another matter: with advantage_scale none they double, and the leash is half as strong beside them.",
        "c": "The penalty compares policies, not rewards. Did an advantage change?",
    },
)

reward_quiz_judge = Choice(
    name="reward_quiz_judge",
    right="c",
    explanations={
        "a": "It worked until somebody optimised it. What happens to a measure that becomes a target?",
        "b": "That is the way to have a score that nobody can check: what is optimised cannot be the witness.",
        "c": "A witness has to be independent of what was paid for, in its data and in its kind; once it is paid "
        "for, another one is needed. And look at the pictures: a judge must name a class for anything.",
    },
)

reward_quiz_threshold = Choice(
    name="reward_quiz_threshold",
    right="a",
    explanations={
        "a": "All rewards of a group are 0, so are all advantages, and so is the gradient. Lower the threshold to "
        "where some samples already pass, and raise it as they get better.",
        "b": "A learning rate multiplies the gradient. What is the gradient?",
        "c": "The leash pulls back to where it is already. What could pull it forward?",
    },
)
