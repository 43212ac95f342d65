"""Exercises of notebook 04. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace

import jax
import numpy as np

from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import draw_mask, pick, tenths
from artifex_rl.lab.properties import holds, implies, unmoved_by
from artifex_rl.rl.losses import estimate_kl
from artifex_rl.rl.returns import compute_group_advantages

# Exercise 1: group advantages ------------------------------------------------------------------------------------

_library_advantages = jax.jit(compute_group_advantages, static_argnames=("group_size", "scale"))


def _draw_groups(rng, size):
    """Groups of which one in four is constant: there, the standard deviation is 0."""
    group_size = int(pick(rng, 2, 4))
    groups = tenths(rng, size, group_size)
    groups[rng.random(size) < 0.25] = pick(rng, -1.0, 0.5, 2.0)
    return {"rewards": groups.reshape(-1), "group_size": group_size}


def _last_group(inputs):
    """Where the last group begins."""
    return len(inputs["rewards"]) - inputs["group_size"]


def _constant_groups(result, inputs):
    """Whether each row's advantage is 0, or its group is not constant."""
    groups = inputs["rewards"].reshape(-1, inputs["group_size"])
    constant = np.repeat(np.ptp(groups, axis=1) == 0, inputs["group_size"])
    return ~constant | (np.abs(result) < 1e-6)


def _scaled_by(scale):
    """Centred in each group, and divided by `scale(centred groups)`."""

    def advantages(rewards, group_size):
        groups = rewards.reshape(-1, group_size)
        centred = groups - groups.mean(axis=1, keepdims=True)
        return (centred / scale(centred)).reshape(-1)

    return advantages


group_advantages = Exercise(
    name="group_advantages",
    title="The group is the critic",
    minutes=10,
    difficulty="easy",
    task="""
GRPO asks the same question several times and compares the answers with one another: each reward less the mean of its
group, divided by the standard deviation of its group (the population's, `np.std`) plus 1e-8.

Write `group_advantages`. `rewards` is `(B,)`, the groups stand one after another, `group_size` rewards each. A group
in which all rewards are equal teaches nothing: its advantages are 0, and no NaN.
""",
    solution="""
def group_advantages(rewards, group_size):
    groups = rewards.reshape(-1, group_size)
    centred = groups - groups.mean(axis=1, keepdims=True)
    return (centred / (groups.std(axis=1, keepdims=True) + 1e-8)).reshape(-1)
""",
    remark="""
At a group of equal rewards all that is left is rounding, and 1e-8 is not much to divide it by. The library subtracts
one of the rewards before it takes the mean, so that equal rewards give 0 exactly, in float32 as well.
""",
    reference=lambda rewards, group_size: _library_advantages(rewards, group_size),
    draw=_draw_groups,
    axes=("row",),
    properties=(
        holds(
            "all rewards of its group are equal, and yet the advantage of row {0} is not 0",
            _constant_groups,
        ),
        implies(
            "your groups mix: other rewards in the last group move the advantage of row {0}, which is in another",
            lambda inputs: (
                {"rewards": np.append(inputs["rewards"][:-1], inputs["rewards"][-1] + 7.7)}
                if _last_group(inputs)
                else None
            ),
            lambda result, inputs: np.where(np.arange(len(result)) < _last_group(inputs), result, np.nan),
        ),
        unmoved_by(
            "where all answers are paid 10 more none is better than before, and the advantage of row {0} moves",
            lambda inputs: {"rewards": inputs["rewards"] + 10.0},
        ),
        unmoved_by(
            "three times the rewards are the same wishes in another unit, and the advantage of row {0} moves",
            lambda inputs: {"rewards": 3 * inputs["rewards"]},
        ),
    ),
    mistakes=(
        (
            _scaled_by(lambda centred: centred.std(axis=1, keepdims=True)),
            "a group of equal rewards has the standard deviation 0, and 0/0 is no number.",
        ),
        (
            lambda rewards, group_size: _library_advantages(rewards, group_size, scale="none"),
            "centred, and not scaled. (Dr. GRPO stops here, for a reason; but that was not asked for.)",
        ),
        (
            lambda rewards, group_size: (rewards - rewards.mean()) / (rewards.std() + 1e-8),
            "you compare with the whole batch: answers to another question are no measure for these.",
        ),
        (
            lambda rewards, group_size: _library_advantages(rewards, group_size, scale="batch"),
            "the mean is the group's, and the standard deviation that of the whole batch.",
        ),
        (
            _scaled_by(lambda centred: centred.std(axis=1, keepdims=True, ddof=1) + 1e-8),
            "you divide by G − 1 within the standard deviation. Here it is that of the population, by G.",
        ),
        (
            _scaled_by(lambda centred: centred.var(axis=1, keepdims=True) + 1e-8),
            "you divide by the variance: then the unit of the rewards does not cancel.",
        ),
        (
            lambda rewards, group_size: (
                rewards / (rewards.reshape(-1, group_size).std(axis=1).repeat(group_size) + 1e-8)
            ),
            "scaled, and not centred: how much better than the group is it?",
        ),
        (
            lambda rewards, group_size: -_library_advantages(rewards, group_size),
            "the sign is turned around: better than the group is positive.",
        ),
    ),
)

# Exercise 2: from tokens to one number ---------------------------------------------------------------------------


@cache
def _library_aggregate(aggregation):
    """The trainer's own mean, compiled."""
    from artifex_rl.rl.grpo import GRPOTrainer

    trainer = SimpleNamespace(config=SimpleNamespace(loss_aggregation=aggregation, max_length=None))
    return jax.jit(partial(GRPOTrainer.aggregate, trainer))


def _draw_tokens(rng, size):
    """Losses of tokens, and numbers in the padding that must not count."""
    return {
        "losses": tenths(rng, size, 4),
        "mask": draw_mask(rng, size, 4),
        "aggregation": pick(rng, "token", "sequence"),
    }


def _aggregate(token, sequence):
    return lambda losses, mask, aggregation: (token if aggregation == "token" else sequence)(losses, mask)


def _token(losses, mask):
    return (losses * mask).sum() / mask.sum()


def _sequence(losses, mask):
    return ((losses * mask).sum(axis=1) / mask.sum(axis=1)).mean()


aggregate_loss = Exercise(
    name="aggregate_loss",
    title="Who weighs how much?",
    minutes=12,
    difficulty="medium",
    task="""
The loss has a number for each token, `losses` of `(B, T)`, and training needs one. Responses are of different length;
`mask` is true on their tokens and false on the padding.

Write `aggregate_loss` for both ways. `aggregation="token"`: the mean over all tokens under the mask, whosever they
are. `aggregation="sequence"`: first the mean over the tokens of each response, then the mean of these.
""",
    solution="""
def aggregate_loss(losses, mask, aggregation):
    sums, lengths = np.where(mask, losses, 0.0).sum(axis=1), mask.sum(axis=1)
    if aggregation == "token":
        return sums.sum() / lengths.sum()
    return (sums / lengths).mean()
""",
    remark="""
Under "sequence" a token of a long response weighs less than one of a short response: a wrong answer is then blamed
less for every word if it is long, and answers grow. Under "token" a long response weighs more in all.
""",
    reference=lambda losses, mask, aggregation: _library_aggregate(aggregation)(losses.astype(np.float32), mask),
    draw=_draw_tokens,
    properties=(
        unmoved_by(
            "another number in the padding changes your loss: only what is under the mask counts",
            lambda inputs: {"losses": np.where(inputs["mask"], inputs["losses"], inputs["losses"] + 7.7)},
        ),
        implies(
            "where every token has the loss 1 the mean is 1, and yours is not",
            lambda inputs: {"losses": np.ones(inputs["losses"].shape)},
            lambda result, inputs: 1.0,
        ),
        implies(
            "by token, 1 more on one token adds 1 divided by the number of all tokens, wherever it stands",
            lambda inputs: {"losses": inputs["losses"] + _first_token(inputs)} if _is(inputs, "token") else None,
            lambda result, inputs: result + 1 / inputs["mask"].sum(),
        ),
        implies(
            "by sequence, 1 more on one token of response 0 adds 1 divided by its length and by how many there are",
            lambda inputs: {"losses": inputs["losses"] + _first_token(inputs)} if _is(inputs, "sequence") else None,
            lambda result, inputs: result + 1 / (inputs["mask"][0].sum() * len(inputs["mask"])),
        ),
    ),
    mistakes=(
        (
            _aggregate(lambda losses, mask: losses.mean(), lambda losses, mask: losses.mean()),
            "the mask is never looked at: padding counts like a token.",
        ),
        (
            _aggregate(lambda losses, mask: (losses * mask).mean(), lambda losses, mask: (losses * mask).mean()),
            "padding adds 0 to the sum, and still counts in the number that you divide by.",
        ),
        (
            _aggregate(_token, _token),
            'both are the mean over all tokens. Under "sequence" every response weighs the same, however long.',
        ),
        (
            _aggregate(_sequence, _sequence),
            'both are the mean of the responses\' means. Under "token" every token weighs the same.',
        ),
        (
            _aggregate(_sequence, _token),
            "the two are swapped.",
        ),
        (
            _aggregate(_token, lambda losses, mask: (losses * mask).sum(axis=1).mean()),
            'under "sequence" you take the sum of each response: divide by its length.',
        ),
        (
            _aggregate(lambda losses, mask: (losses * mask).sum(), _sequence),
            'under "token" this is the sum: divide by the number of tokens.',
        ),
    ),
)


def _is(inputs, aggregation):
    return inputs["aggregation"] == aggregation


def _first_token(inputs):
    one = np.zeros(inputs["losses"].shape)
    one[0, 0] = 1.0
    return one


# Exercise 3: k3 --------------------------------------------------------------------------------------------------

_library_k3 = jax.jit(estimate_kl)


def _estimator(of_ratio):
    """`of_ratio(d)` with d = log π_ref − log π."""
    return lambda log_probs, ref_log_probs: of_ratio(np.asarray(ref_log_probs) - np.asarray(log_probs))


kl_k3 = Exercise(
    name="kl_k3",
    title="An estimate that is never negative",
    minutes=8,
    difficulty="medium",
    task="""
How far has the policy gone from the reference? What there is are samples *of the policy*, and their log-probabilities
under both. Write `kl_k3`, the estimate $e^{d} - 1 - d$ with $d = \\log \\pi_\\text{ref} - \\log \\pi$, one number for
each sample.
""",
    solution="""
def kl_k3(log_probs, ref_log_probs):
    d = ref_log_probs - log_probs
    return np.exp(d) - 1 - d
""",
    remark="""
−d alone (k1) has the right mean too, and half of the time the wrong sign. What is added, eᵈ − 1, is 0 on average
under the policy, and large exactly where k1 strays: a *control variate*, which is the idea of a baseline again.
""",
    reference=_library_k3,
    draw=lambda rng, size: {
        "log_probs": tenths(rng, size, low=-3.0, high=-0.1),
        "ref_log_probs": tenths(rng, size, low=-3.0, high=-0.1),
    },
    axes=("sample",),
    properties=(
        holds("the estimate of sample {0} is negative: k3 never is", lambda result, inputs: result >= -1e-5),
        implies(
            "where policy and reference agree there is no distance, and the estimate of sample {0} is not 0",
            lambda inputs: {"ref_log_probs": inputs["log_probs"]},
            lambda result, inputs: 0.0,
        ),
        implies(
            "where the reference is far below the policy, k3 grows by 1 with each unit of the distance; "
            "that of sample {0} does not: which of the two is subtracted from which?",
            lambda inputs: {"ref_log_probs": inputs["log_probs"] - 15.0},
            lambda result, inputs: 14.0,
        ),
    ),
    mistakes=(
        (
            lambda log_probs, ref_log_probs: _library_k3(ref_log_probs, log_probs),
            "d has the wrong sign. The samples are the policy's: the ratio is reference over policy.",
        ),
        (_estimator(lambda d: -d), "this is k1: right on average, and negative half of the time."),
        (_estimator(lambda d: d**2 / 2), "this is k2, d²/2: of low variance, and biased."),
        (
            _estimator(lambda d: np.exp(d) - 1 + d),
            "the last term has the wrong sign: the curve should touch 0 at d = 0.",
        ),
        (_estimator(lambda d: np.exp(d) - d), "where the two agree this is 1: something is left to subtract."),
        (
            lambda log_probs, ref_log_probs: np.full(len(log_probs), np.mean(_library_k3(log_probs, ref_log_probs))),
            "this is the mean, for every sample: leave averaging to the caller.",
        ),
        (
            lambda log_probs, ref_log_probs: np.exp(log_probs) * (log_probs - ref_log_probs),
            "a sample is drawn with its probability already: do not weigh it with π a second time.",
        ),
    ),
)

# Diagnosis -------------------------------------------------------------------------------------------------------


def suspect_red(trainer, prompts, reward_fn):
    """One of the two suspects: draws and scores a batch for `train_step`."""
    return trainer.collect(prompts, reward_fn)


def suspect_blue(trainer, prompts, reward_fn):
    """One of the two suspects."""
    batch = trainer.collect(prompts, reward_fn)
    answers = np.asarray(batch["rewards"]).reshape(-1, trainer.num_generations)  # (prompts, answers)
    return batch | {"rewards": answers.T.reshape(-1)}


grpo_broken = Choice(
    name="grpo_broken",
    right="blue",
    explanations={
        "red": "Its loss must be 0: every ratio is 1, and the advantages of a group add up to 0. Groups that fall "
        "silent are what success looks like: all answers are right. Pay a single answer, and it is the one praised.",
        "blue": "Its rewards come back answer by answer, and it reads them prompt by prompt: each word is praised "
        "for another one. The advantages still have mean 0 and deviation 1 in each group, so every dial is content; "
        "and the mean reward, where order does not count, is reported faithfully: it does not rise.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

grpo_quiz_silent = Choice(
    name="grpo_quiz_silent",
    right="b",
    explanations={
        "a": "More likely than what? All of them did equally well, and an advantage is what is left after the mean "
        "of the group has been taken away.",
        "b": "All rewards equal the mean, so all advantages are 0. The prompt is mastered, and its samples are paid "
        "for and not used. DAPO draws such groups again until they teach.",
        "c": "0/0 would be trouble, and that is why a small number is added below. What stands above it?",
    },
)

grpo_quiz_scale = Choice(
    name="grpo_quiz_scale",
    right="c",
    explanations={
        "a": "There the standard deviation is at its largest, ½: dividing by it helps these prompts the least.",
        "b": "Before dividing, a group with a larger deviation pushes more. After dividing, all groups have "
        "advantages of the same size. Whose grew the most?",
        "c": "Their deviation is small, and dividing by something small makes large. Dr. GRPO calls it a bias "
        "towards questions that are too hard or too easy, and leaves the division out.",
    },
)

grpo_quiz_hacked = Choice(
    name="grpo_quiz_hacked",
    right="a",
    explanations={
        "a": "Reward is what was optimised, so it is the last to know. Samples, the share of distinct ones, and a "
        "judge that was not trained on tell what was given for it.",
        "b": "With one update for each batch it is 0 whether the run is splendid or ruined.",
        "c": "It says that the policy is far from where it began. A policy that has learnt its task is far away too.",
    },
)
