"""Exercises of notebook 13. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from artifex_rl.callbacks.checkpoint_config import CheckpointConfig
from artifex_rl.callbacks.checkpoint_folder import SavedCheckpoint
from artifex_rl.callbacks.early_stopping import EarlyStopping
from artifex_rl.callbacks.plots import running_average
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import holds, implies

# Exercise 1: smoothing -------------------------------------------------------------------------------------------


def _draw_smoothing(rng, size):
    return {"values": tenths(rng, size + 1), "keep": float(pick(rng, 0.5, 0.8, 0.9))}


def _recursive(start, correct=lambda averages, keep, steps: averages, swap=False):
    """An exponential average with a first value, perhaps corrected in some way."""

    def smooth(values, keep):
        keep = 1 - keep if swap else keep
        averages, average = [], start(values)
        for value in values:
            average = keep * average + (1 - keep) * value
            averages.append(average)
        return correct(np.array(averages), keep, np.arange(len(values)))

    return smooth


smooth = Exercise(
    name="smooth",
    title="Smoothing without a lie at the beginning",
    minutes=8,
    difficulty="easy",
    task="""
A noisy curve is drawn as a running average: $m_t = \\text{keep}\\cdot m_{t-1} + (1-\\text{keep})\\, x_t$. It
begins at $m_{-1} = 0$, and is drawn towards 0 for a while. The cure is to divide by the sum of the weights that
the values have got so far, $1 - \\text{keep}^{\\,t+1}$.

Write `smooth` for `values` of `(K,)`: the corrected average after each of them, `(K,)`.
""",
    solution="""
def smooth(values, keep):
    averages, average = [], 0.0
    for value in values:
        average = keep * average + (1 - keep) * value
        averages.append(average)
    return np.array(averages) / (1 - keep ** (np.arange(len(values)) + 1))
""",
    remark="""
It is Adam's correction of its moments. To begin with $m_{-1} = x_0$ instead is common, and gives the first
value a weight that it keeps for long: with 0.9 it outweighs the next six together.
""",
    reference=running_average,
    draw=_draw_smoothing,
    axes=("step",),
    properties=(
        implies(
            "the average of values that are all 1 is 1, and that at step {0} is not: do the weights add up to 1?",
            lambda inputs: {"values": np.ones_like(inputs["values"])},
            lambda result, inputs: 1.0,
        ),
        holds(
            "the average of one value is that value, and the first one is another",
            lambda result, inputs: np.isclose(result[0], inputs["values"][0]),
        ),
        implies(
            "what comes last moves the average at step {0}, which is earlier",
            lambda inputs: {"values": np.append(inputs["values"][:-1], 7.0)},
            lambda result, inputs: np.append(result[:-1], np.nan),
        ),
    ),
    mistakes=(
        (
            _recursive(lambda values: 0.0),
            "it begins at 0, and nothing makes up for that. How much weight have the values got at step t?",
        ),
        (
            _recursive(lambda values: values[0]),
            "it begins with the first value, which then weighs too much: the second is averaged with it by `keep`.",
        ),
        (
            _recursive(lambda values: 0.0, lambda averages, keep, steps: averages / (1 - keep ** (steps + 1)), True),
            "the two weights are swapped: `keep` belongs to what was before.",
        ),
        (
            lambda values, keep: np.cumsum(values) / (np.arange(len(values)) + 1),
            "this is the plain mean of all so far: old values should fade.",
        ),
        (
            _recursive(lambda values: 0.0, lambda averages, keep, steps: averages / (1 - keep ** (steps + 2))),
            "one step too late: after the first value the sum of the weights is one minus `keep`.",
        ),
        (
            lambda values, keep: running_average(values[::-1], keep)[::-1],
            "you begin at the end: what is to come is not known yet.",
        ),
    ),
)

# Exercise 2: the k best ------------------------------------------------------------------------------------------


def _kept(values, k):
    """What `ModelCheckpoint` has on the disk in the end, by the rule that it keeps."""
    rule, saved = CheckpointConfig(monitor="value", mode="max", save_top_k=int(k)), []
    for step, value in enumerate(np.asarray(values, float).tolist()):
        if rule.is_among_the_best({"value": value}, step, saved):
            saved = rule.to_keep([*saved, SavedCheckpoint(step, None, {"value": value})], keep_newest=False)
    return np.isin(np.arange(len(values)), [one.step for one in saved]).astype(float)


def _draw_kept(rng, size):
    """Whole numbers, so that there are ties, and here and there NaN."""
    values = rng.integers(0, 5, size + 2).astype(float)
    values[rng.random(size + 2) < 0.25] = np.nan
    return {"values": values, "k": int(pick(rng, 1, 2, 3))}


def _first(order):
    """The first k of the steps in some order."""

    def kept(values, k):
        mask = np.zeros(len(values))
        mask[order(values, k)[:k]] = 1
        return mask

    return kept


def _finite_by(key):
    return _first(lambda values, k: sorted(np.flatnonzero(np.isfinite(values)), key=lambda i: key(values, i)))


kept = Exercise(
    name="kept",
    title="The k best",
    minutes=10,
    difficulty="medium",
    task="""
`values` is `(K,)`, the metric that is monitored, one number a step; the higher the better. Each step may be
saved, and in the end the `k` best are on the disk.

Write `kept`, `(K,)`: 1 where the checkpoint of a step is kept, else 0. NaN is never among the best, even if
fewer than `k` are left. Of equal values the earlier is the better: it was there first, and nothing is written
for a tie.
""",
    solution="""
def kept(values, k):
    order = sorted(np.flatnonzero(np.isfinite(values)), key=lambda step: (-values[step], step))
    mask = np.zeros(len(values))
    mask[order[:k]] = 1
    return mask
""",
    remark="""
`ModelCheckpoint` does the same one step at a time, and writes a checkpoint only if it is better than the k-th
best so far. That is the *last* of the best: a comparison with the best alone keeps one too few.
""",
    reference=_kept,
    draw=_draw_kept,
    axes=("step",),
    properties=(
        holds(
            "the value of step {0} is NaN, and it is kept",
            lambda result, inputs: ~(np.isnan(inputs["values"]) & (result > 0)),
        ),
        holds("more than k are kept", lambda result, inputs: np.sum(result > 0) <= inputs["k"]),
        holds(
            "step {0} is kept, and a better one is not",
            lambda result, inputs: [
                not r or not np.any((inputs["values"] > v) & (result == 0))
                for r, v in zip(result, inputs["values"], strict=True)
            ],
        ),
        implies(
            "with room for all of them every number is kept, and that of step {0} is not",
            lambda inputs: {"k": len(inputs["values"])},
            lambda result, inputs: np.isfinite(inputs["values"]),
        ),
    ),
    mistakes=(
        (
            _first(lambda values, k: np.argsort(values, kind="stable")[::-1]),
            "sorting puts NaN behind all numbers, so from the end they come first.",
        ),
        (
            _finite_by(lambda values, i: (values[i], i)),
            "these are the k lowest: higher is better.",
        ),
        (
            _finite_by(lambda values, i: (-values[i], -i)),
            "of equal values the earlier is kept; you keep the later.",
        ),
        (
            lambda values, k: (
                values >= (np.sort(np.append(values[np.isfinite(values)], [-9.0] * k))[::-1][k - 1])
            ).astype(float),
            "all that are as good as the k-th best are kept, and with ties these are more than k.",
        ),
        (
            _first(lambda values, k: np.flatnonzero(np.isfinite(values))[::-1]),
            "these are the k newest. What says that they are the best?",
        ),
        (
            lambda values, k: _finite_by(lambda values, i: (-values[i], i))(values, k - 1),
            "one too few: the k-th best is kept as well.",
        ),
    ),
)

# Exercise 3: patience --------------------------------------------------------------------------------------------


def _waited(values, min_delta):
    """The callback's own count after each value, with a patience that never ends."""
    callback = EarlyStopping("value", patience=10**9, min_delta=float(min_delta), check_finite=False)
    trainer, counts = SimpleNamespace(should_stop=False, step=0), []
    for step, value in enumerate(np.asarray(values, float).tolist()):
        callback.on_train_batch_end(trainer, {"value": value}, step)
        counts.append(callback.waited)
    return np.array(counts, float)


def _draw_waited(rng, size):
    """Quarters, whose differences are exact; falling on the whole, with NaN here and there."""
    values = rng.integers(0, 9, size + 3) / 4 - np.arange(size + 3) / 4
    values[rng.random(size + 3) < 0.2] = np.nan
    return {"values": values, "min_delta": float(pick(rng, 0.0, 0.25, 0.5))}


def _count(improved, best_of=lambda best, value, better: value if better else best):
    """Patience with some other idea of an improvement, or of what is best."""

    def waited(values, min_delta):
        best, count, counts = np.inf, 0, []
        for value in values:
            better = bool(improved(best, value, min_delta))
            best = best_of(best, value, better)
            count = 0 if better else count + 1
            counts.append(float(count))
        return np.array(counts)

    return waited


waited = Exercise(
    name="waited",
    title="Patience",
    minutes=12,
    difficulty="harder",
    task="""
Early stopping counts for how many values there was no improvement, and stops when this is as many as its
patience. Lower is better. An improvement is a value that is below the best so far by **more than** `min_delta`;
only then does it become the best. NaN is no improvement. The first number is one.

Write `waited`, `(K,)`: the count after each of the `values`, `(K,)`. It is 0 where there was an improvement.
""",
    solution="""
def waited(values, min_delta):
    best, count, counts = np.inf, 0, []
    for value in values:
        if best - value > min_delta:
            best, count = value, 0
        else:
            count += 1
        counts.append(count)
    return np.array(counts, float)
""",
    remark="""
A comparison with NaN is false, whatever is asked: `best - value > min_delta` is right by itself, and `not value
>= best` would have taken NaN for an improvement. Where the best moves with every small step, a slow slide
downwards is never noticed; where it stays, small steps add up to an improvement. The latter is what is meant.
""",
    reference=_waited,
    draw=_draw_waited,
    axes=("step",),
    properties=(
        holds(
            "the value of step {0} is NaN, and counts as an improvement",
            lambda result, inputs: ~(np.isnan(inputs["values"]) & (result == 0)),
        ),
        implies(
            "where no value is lower than the first nothing improves after it, and step {0} says otherwise",
            lambda inputs: {"values": np.arange(len(inputs["values"])) / 4},
            lambda result, inputs: np.arange(len(inputs["values"])),
        ),
        implies(
            "steps that are smaller than min_delta add up, and at step {0} they should, or should not yet, be enough",
            lambda inputs: {"values": -np.arange(len(inputs["values"])) / 8, "min_delta": 0.25},
            lambda result, inputs: np.arange(len(inputs["values"])) % 3,
        ),
        implies(
            "an improvement is by more than min_delta, and at step {0} it was by exactly that",
            lambda inputs: {"values": np.where(np.arange(len(inputs["values"])) == 0, 0.25, 0.0), "min_delta": 0.25},
            lambda result, inputs: np.arange(len(inputs["values"])),
        ),
    ),
    mistakes=(
        (
            _count(lambda best, value, delta: best - value > delta, lambda best, value, better: value),
            "you compare with the value before. What counts is the best so far.",
        ),
        (
            _count(lambda best, value, delta: best - value >= delta),
            "an improvement by exactly min_delta is none yet.",
        ),
        (
            _count(lambda best, value, delta: not best - value <= delta),
            "a comparison with NaN is false, and `not` makes it true.",
        ),
        (
            _count(lambda best, value, delta: best > value),
            "min_delta is never looked at.",
        ),
        (
            _count(lambda best, value, delta: best - value > delta, lambda best, value, better: np.fmin(best, value)),
            "the best moves with every small step, so that small steps never add up.",
        ),
        (
            _count(lambda best, value, delta: (best if np.isinf(best) else -best) - -value > delta),
            "it is the wrong way round: lower is better.",
        ),
    ),
)

# Diagnosis lab: three dashboards ---------------------------------------------------------------------------------

dashboard_red = Choice(
    name="dashboard_red",
    right="b",
    explanations={
        "a": "Return, entropy, critic: all is as one would wish. Is there a dial that nobody is paid for?",
        "b": "It is paid for the speed of the cart. The return stays where it is while the pole stands for less and "
        "less: no dial of the algorithm can show that, because the algorithm is all right.",
        "c": "A policy that is drowned does not move: how large is the KL of an update here?",
    },
)

dashboard_blue = Choice(
    name="dashboard_blue",
    right="a",
    explanations={
        "a": "The returns are long, so the losses are large; and when every episode reaches the time limit there is "
        "no variance left to explain, and its explained share means nothing. The pole stands.",
        "b": "Its return and the time that the pole stands are the same number.",
        "c": "Does the policy move? Compare the KL of an update with the run that is drowned.",
    },
)

dashboard_green = Choice(
    name="dashboard_green",
    right="c",
    explanations={
        "a": "It does get better. By how much in a hundred updates, and how far does the policy move in one?",
        "b": "Its return and the time that the pole stands go together. Something else is the matter.",
        "c": "Rewards of a thousand make a value loss of millions. The gradient of both is cut to one length, and "
        "what is left for the policy is next to nothing. Scale the rewards, or cut the two apart.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

tracking_quiz_resume = Choice(
    name="tracking_quiz_resume",
    right="c",
    explanations={
        "a": "Adam would begin with empty moments: the next step would be another one.",
        "b": "With another stream of random numbers the samples are others. Is that the run that was killed?",
        "c": "Weights, moments, step, random key, and what the callbacks and the order of the data have come to. "
        "Whatever is missing makes it another run, and no curve shows you where.",
    },
)

tracking_quiz_best = Choice(
    name="tracking_quiz_best",
    right="b",
    explanations={
        "a": "The training reward is what is being hacked: its best checkpoint is the most thoroughly hacked one.",
        "b": "What is monitored is what is selected for. Of a few noisy values the best is partly luck, too: measure "
        "it again before you tell anybody.",
        "c": "The loss of a policy gradient says nothing of how good the policy is.",
    },
)

tracking_quiz_stop = Choice(
    name="tracking_quiz_stop",
    right="a",
    explanations={
        "a": "The policy that collects the next batch is broken already: the stop has to come before, and there is a "
        "checkpoint to go back to.",
        "b": "A smaller learning rate from here on moves a broken policy slowly.",
        "c": "An average over so many updates comes too late: the worst update was the first.",
    },
)
