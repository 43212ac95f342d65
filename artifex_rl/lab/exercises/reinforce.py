"""Exercises of notebook 02. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.configs import REINFORCEConfig
from artifex_rl.lab.answers import measure_with_gradients
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import draw_dones, pick, tenths
from artifex_rl.lab.properties import implies, is_a_mean, no_gradient, no_leak, sign, unmoved_by
from artifex_rl.rl.returns import compute_discounted_returns, compute_group_advantages
from artifex_rl.rl.trainer import masked_mean

# Exercise 1: reward-to-go ----------------------------------------------------------------------------------------

_library_returns = jax.jit(compute_discounted_returns)


def _one_column_changed(inputs):
    """Other rewards in the last environment; nothing to say where there is one alone."""
    rewards = inputs["rewards"].copy()
    rewards[:, -1] += 1.7
    return {"rewards": rewards} if rewards.shape[1] > 1 else None


def _all_but_the_last(result, inputs):
    return np.where(np.arange(result.shape[1]) < result.shape[1] - 1, result, np.nan)


def _episode_total(rewards, dones, gamma):
    """The return of the first step of its episode, for every step of it."""
    totals = np.array(_library_returns(rewards, gamma, dones))
    for t, n in np.ndindex(*totals.shape):
        if t and not dones[t - 1, n]:
            totals[t, n] = totals[t - 1, n]
    return totals


def _from_the_start(rewards, dones, gamma):
    """Rewards weighted by their time since the episode began, and not since the action."""
    weights = np.ones(rewards.shape)
    for t, n in np.ndindex(*rewards.shape):
        weights[t, n] = 1.0 if t == 0 or dones[t - 1, n] else gamma * weights[t - 1, n]
    return weights * np.asarray(_library_returns(rewards, gamma, dones))


reward_to_go = Exercise(
    name="reward_to_go",
    title="Reward-to-go, side by side",
    minutes=8,
    difficulty="easy",
    task="""
Training looks at many environments at once: `rewards` and `dones` are `(T, N)`, time first, one column for each
environment. An action can only be paid for what came after it, and only within its own episode and its own column.

Write `reward_to_go`, $G_t = r_t + \\gamma\\, G_{t+1}$ in every column, cut where `dones[t, n]` is true.
""",
    solution="""
def reward_to_go(rewards, dones, gamma):
    returns, following = np.zeros(rewards.shape), np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * np.where(dones[t], 0.0, following)   # all environments in one line
        returns[t] = following
    return returns
""",
    remark="""
There is one loop, over time, because one step needs the next. Environments need nothing of each other: no loop.
`compute_discounted_returns(rewards, gamma, dones)` takes the same arrays.
""",
    reference=lambda rewards, dones, gamma: _library_returns(rewards, gamma, dones),
    draw=lambda rng, size: {
        "rewards": tenths(rng, size, 2),
        "dones": draw_dones(rng, size, 2),
        "gamma": pick(rng, 0.5, 0.8, 0.9),
    },
    axes=("step", "environment"),
    properties=(
        no_leak("returns", "rewards", "dones"),
        implies(
            "the environments are mixed up: other rewards in the last one move the return of t = {0} in number {1}",
            _one_column_changed,
            _all_but_the_last,
        ),
        implies(
            "your returns look back: another reward at t = 0 moves the return of t = {0} in environment {1}",
            lambda inputs: {"rewards": inputs["rewards"] + 1.7 * (np.arange(len(inputs["rewards"])) == 0)[:, None]},
            lambda result, inputs: np.where((np.arange(len(result)) == 0)[:, None], np.nan, result),
        ),
        implies(
            "with γ = 0 a return is the reward itself, and yours at t = {0} in environment {1} is not",
            lambda inputs: {"gamma": 0.0},
            lambda result, inputs: inputs["rewards"],
        ),
    ),
    mistakes=(
        (
            lambda rewards, dones, gamma: _library_returns(rewards, gamma),
            "dones is never looked at: what should the last step of an episode add from later?",
        ),
        (
            lambda rewards, dones, gamma: _library_returns(rewards, 1.0, dones),
            "every later reward counts in full: where does γ enter?",
        ),
        (
            _episode_total,
            "every step of an episode gets the return of its first: an action is paid for what came before it. That "
            "is right on average, and noisier.",
        ),
        (
            _from_the_start,
            "you discount from the start of the episode. Seen from step t the reward of step t has the weight 1.",
        ),
        (
            lambda rewards, dones, gamma: np.asarray(_library_returns(rewards[::-1], gamma, dones[::-1]))[::-1],
            "you add up the past. A return looks forward: which step must be computed first?",
        ),
        (
            lambda rewards, dones, gamma: np.asarray(_library_returns(rewards.T, gamma, dones.T)).T,
            "you run along the environments. Time is the first axis.",
        ),
        (
            lambda rewards, dones, gamma: _library_returns(rewards, gamma, dones | dones.any(axis=1)[:, None]),
            "one environment's end cuts all of them: dones[t] is a row with a flag for each.",
        ),
    ),
)

# Exercise 2: the loss --------------------------------------------------------------------------------------------


def _loss(log_probs, returns, values):
    """What the trainer minimises, without mask and entropy."""
    return -masked_mean(log_probs * jax.lax.stop_gradient(returns - values))


policy_gradient_loss = Exercise(
    name="policy_gradient_loss",
    title="A loss whose gradient is the policy gradient",
    minutes=12,
    difficulty="medium",
    task="""
An optimiser goes downhill, and we want to go up, along
$\\frac1T \\sum_t \\nabla \\log \\pi(a_t|s_t)\\,(G_t - V(s_t))$.

Write `policy_gradient_loss`, a scalar whose gradient is *minus* that. All three arguments are `(T,)` arrays of JAX,
and the critic is another network with a loss of its own: **no gradient may flow into `values` or `returns`**
(`jax.lax.stop_gradient`). The check differentiates what you write, so use `jnp`.
""",
    solution="""
def policy_gradient_loss(log_probs, returns, values):
    advantages = jax.lax.stop_gradient(returns - values)
    return -jnp.mean(log_probs * advantages)
""",
    remark="""
Its *value* means little: it goes up and down with the batch, and 0 is nothing special. Only its gradient is meant.
""",
    reference=jax.jit(_loss),
    draw=lambda rng, size: {
        "log_probs": tenths(rng, size, low=-3.0, high=-0.1),
        "returns": tenths(rng, size),
        "values": tenths(rng, size),
    },
    measure=measure_with_gradients("log_probs", "returns", "values"),
    sizes=(1, 2, 4),
    properties=(
        no_gradient("values", "the critic would be trained to make this loss small, and not to be right"),
        no_gradient("returns", "a return is what happened, nobody can change it"),
        sign(
            "the gradient points the wrong way: downhill on your loss makes good actions less likely",
            "the gradient by log_probs",
        ),
        implies(
            "where returns and values are equal nothing is better or worse than expected: the loss must be 0",
            lambda inputs: {"values": inputs["returns"]},
            lambda result, inputs: 0.0,
        ),
        is_a_mean("log_probs", "returns", "values"),
    ),
    mistakes=(
        (
            lambda log_probs, returns, values: -_loss(log_probs, returns, values),
            "this is what should grow. An optimiser makes a loss smaller.",
        ),
        (
            lambda log_probs, returns, values: -jnp.mean(log_probs * (returns - values)),
            "the advantage is a number here and no function: stop the gradient at it.",
        ),
        (
            lambda log_probs, returns, values: -jnp.mean(log_probs * (jax.lax.stop_gradient(returns) - values)),
            "the gradient is stopped at the returns, and still flows into the values.",
        ),
        (
            lambda log_probs, returns, values: _loss(log_probs, returns, 0 * values),
            "the baseline is missing: these are the returns themselves.",
        ),
        (
            lambda log_probs, returns, values: len(log_probs) * _loss(log_probs, returns, values),
            "this is the sum over the steps. A mean keeps the step size the same when the batch grows.",
        ),
        (
            lambda log_probs, returns, values: _loss(jnp.exp(log_probs), returns, values),
            "this is the gradient of π. The policy gradient has ∇ log π: an action that is taken often is also "
            "counted often.",
        ),
        (
            lambda log_probs, returns, values: _loss(jax.lax.stop_gradient(log_probs), returns, values),
            "nothing would be learned: the gradient is stopped at the log-probabilities too.",
        ),
    ),
)

# Exercise 3: leave one out ---------------------------------------------------------------------------------------


def _draw_groups(rng, size):
    group_size = int(pick(rng, 2, 3))
    return {"rewards": tenths(rng, size * group_size), "group_size": group_size}


_library_advantages = jax.jit(compute_group_advantages, static_argnames=("group_size", "scale"))


def _leave_one_out(rewards, group_size):
    """As the trainer has it: r − mean of the others = (r − mean of all) · G / (G − 1)."""
    centred = _library_advantages(rewards, group_size, scale="none")
    return np.asarray(centred) * (group_size / (group_size - 1))


def _by_group(rewards, group_size, baseline):
    groups = rewards.reshape(-1, group_size)
    return (groups - baseline(groups)).reshape(-1)


def _others(groups):
    return (groups.sum(axis=1, keepdims=True) - groups) / (groups.shape[1] - 1)


leave_one_out_advantages = Exercise(
    name="leave_one_out_advantages",
    title="A baseline for free",
    minutes=10,
    difficulty="medium",
    task="""
Draw several answers to the same question, and each has its baseline without any critic: **the mean reward of the
others**. Its own reward must not be in it, else the baseline would depend on the action, and the gradient be biased.

Write `leave_one_out_advantages`: each reward less the mean of the other rewards of its group. `rewards` is `(B,)`,
the groups stand one after another, `group_size` (at least 2) rewards each.
""",
    solution="""
def leave_one_out_advantages(rewards, group_size):
    groups = rewards.reshape(-1, group_size)
    others = (groups.sum(axis=1, keepdims=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)
""",
    remark="""
It is the distance to the mean of *all*, times G/(G − 1). So the biased baseline is no disaster, only a smaller
step: that is why GRPO gets away with it.
""",
    reference=_leave_one_out,
    draw=_draw_groups,
    axes=("row",),
    properties=(
        implies(
            "your groups mix: other rewards in the last group move the advantage of row {0}, which is in another",
            lambda inputs: (
                {"rewards": inputs["rewards"] + 1.7 * (np.arange(len(inputs["rewards"])) >= _last_group(inputs))}
                if _last_group(inputs)
                else None
            ),
            lambda result, inputs: np.where(np.arange(len(result)) < _last_group(inputs), result, np.nan),
        ),
        unmoved_by(
            "where all answers are paid 10 more none is better than before, and the advantage of row {0} moves",
            lambda inputs: {"rewards": inputs["rewards"] + 10.0},
        ),
        implies(
            "the baseline of row {0} depends on its own reward: with 1 more reward it should have 1 more advantage",
            lambda inputs: {"rewards": inputs["rewards"] + (np.arange(len(inputs["rewards"])) == 0)},
            lambda result, inputs: np.where(np.arange(len(result)) == 0, result + 1.0, np.nan),
        ),
    ),
    mistakes=(
        (
            lambda rewards, group_size: _library_advantages(rewards, group_size, scale="none"),
            "your baseline is the mean of all, the sample itself included.",
        ),
        (
            lambda rewards, group_size: rewards - (rewards.sum() - rewards) / (len(rewards) - 1),
            "you average over the whole batch. Other questions are other games: only the group counts.",
        ),
        (
            lambda rewards, group_size: _by_group(
                rewards, group_size, lambda groups: (groups.sum(axis=1, keepdims=True) - groups) / groups.shape[1]
            ),
            "there are G − 1 others, and you divide their sum by G.",
        ),
        (
            lambda rewards, group_size: _others(rewards.reshape(-1, group_size)).reshape(-1),
            "this is the baseline. The advantage is how much better the reward was.",
        ),
        (
            lambda rewards, group_size: -_leave_one_out(rewards, group_size),
            "the sign is turned around: better than the others is positive.",
        ),
        (
            lambda rewards, group_size: _library_advantages(rewards, group_size),
            "you divide by the standard deviation too. That is GRPO, and comes later.",
        ),
        (
            lambda rewards, group_size: (
                lambda groups: (groups - (groups.sum(axis=0) - groups) / max(len(groups) - 1, 1)).reshape(-1)
            )(rewards.reshape(-1, group_size)),
            "you average over the wrong axis: a group is a row of rewards.reshape(-1, group_size).",
        ),
    ),
)


def _last_group(inputs) -> int:
    """Where the last group begins."""
    return len(inputs["rewards"]) - inputs["group_size"]


# Diagnosis -------------------------------------------------------------------------------------------------------

#: How one of the two suspects was trained.
suspect_blue = REINFORCEConfig(gamma=0.99, baseline="value", normalize_returns=False, entropy_coeff=30.0)

reinforce_which_is_broken = Choice(
    name="reinforce_which_is_broken",
    right="blue",
    explanations={
        "red": "Its loss rises because its returns do: without a baseline the loss is about (log 2) times the mean "
        "return. Play the episodes before you judge.",
        "blue": "Its loss falls because its critic learns to foresee how soon the pole falls. The policy is where it "
        "was: nothing in those curves had to do with how long the pole stands.",
    },
)

reinforce_what_is_broken = Choice(
    name="reinforce_what_is_broken",
    right="c",
    explanations={
        "a": "A policy trained with the wrong sign looks for the quickest fall, and becomes sure of it: its entropy "
        "would fall. What did the test print about P(right)?",
        "b": "Returns that are not centred make the gradient noisy and leave its mean alone: Red's are not centred "
        "either, and Red learns.",
        "c": "The bonus pays more for a coin than the pole pays for balance, so a coin is the best policy there is. "
        "An entropy that stays at its maximum is no exploration: nothing found is ever used.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

reinforce_quiz_free = Choice(
    name="reinforce_quiz_free",
    right="b",
    explanations={
        "a": "It would if it depended on the action. Where it depends on the state alone the scores cancel, "
        "Σ π ∇ log π = ∇ 1 = 0, whatever the number is.",
        "b": "Scores cancel on average, so any number may be subtracted; and a good one leaves only what was better "
        "or worse than expected.",
        "c": "The learning rate scales mean and noise alike. A baseline changes the ratio of the two.",
    },
)

reinforce_quiz_loss = Choice(
    name="reinforce_quiz_loss",
    right="c",
    explanations={
        "a": "For supervised learning it would be: there the data stays the same. Here every batch is another one, "
        "drawn by another policy. Look at Red again.",
        "b": "With the mean subtracted the loss is about 0 from the first update to the last.",
        "c": "The loss is built for its gradient alone. What the policy is there for is the return, so plot that, "
        "and diversity or entropy beside it.",
    },
)

reinforce_quiz_reuse = Choice(
    name="reinforce_quiz_reuse",
    right="a",
    explanations={
        "a": "The formula is an expectation over episodes of the policy of now. After the first step that is another "
        "policy; PPO corrects for it, within limits. That is notebook 03.",
        "b": "A batch tells the same five times, but it is not the same policy that it tells about after the first "
        "step.",
        "c": "Averaging helps with fresh batches. The same batch has the same accidents in it, five times.",
    },
)
