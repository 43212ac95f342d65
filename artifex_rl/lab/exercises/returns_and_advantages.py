"""Exercises of notebook 01. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import numpy as np

from artifex_rl.lab.checks import Choice, Exercise, Number

# How far gamma sees ----------------------------------------------------------------------------------------------

half_life = Number(
    name="half_life",
    value=69,
    too_low="at your k the weight γᵏ is still at least a half. Print 0.99**k for a few k.",
    too_high="the weight has fallen below a half earlier. Print 0.99**k for a few k.",
    mistakes=(
        (100, "that is the horizon 1/(1−γ), where the weight has fallen to about 1/e."),
        (50, "the weight falls by a hundredth of what is left, not by a hundredth of 1."),
    ),
)

# Exercise 1: returns of several episodes -------------------------------------------------------------------------


def _backwards(rewards, dones, gamma, step):
    results, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        following = results[t] = step(t, following, rewards, dones, gamma)
    return results


def _returns(rewards, dones, gamma):
    return _backwards(rewards, dones, gamma, lambda t, g, r, d, y: r[t] + y * g * (1 - d[t]))


def _returns_from_the_past(rewards, dones, gamma):
    results, total = np.zeros(len(rewards)), 0.0
    for t in range(len(rewards)):
        results[t] = total = rewards[t] + gamma * total
        total = 0.0 if dones[t] else total
    return results


def _returns_cut_early(rewards, dones, gamma):
    def step(t, g, r, d, y):
        return r[t] + y * g * (1 - d[min(t + 1, len(d) - 1)])

    return _backwards(rewards, dones, gamma, step)


returns_of_episodes = Exercise(
    name="returns_of_episodes",
    reference=_returns,
    cases={
        "one episode": {
            "rewards": np.array([2.0, 1.0, 0.0, 4.0]),
            "dones": np.array([0, 0, 0, 1], bool),
            "gamma": 0.5,
        },
        "two episodes": {
            "rewards": np.array([1.0, 2.0, 3.0, -1.0, 5.0, 2.0]),
            "dones": np.array([0, 0, 1, 0, 0, 1], bool),
            "gamma": 0.9,
        },
        "an episode of one step": {
            "rewards": np.array([3.0, 1.0, 2.0, 2.5]),
            "dones": np.array([1, 0, 0, 1], bool),
            "gamma": 0.8,
        },
        "an episode still running": {
            "rewards": np.array([1.0, 1.0, 1.0, 2.0]),
            "dones": np.array([0, 1, 0, 0], bool),
            "gamma": 0.7,
        },
    },
    mistakes=(
        (
            lambda rewards, dones, gamma: _returns(rewards, np.zeros(len(dones)), gamma),
            "your returns run across the end of an episode: what should the step with dones[t] add from later?",
        ),
        (
            _returns_from_the_past,
            "you add up the past. A return looks forward: which step must be computed first?",
        ),
        (
            lambda rewards, dones, gamma: _returns(rewards, dones, 1.0),
            "every later reward counts in full: where does γ enter?",
        ),
        (
            lambda rewards, dones, gamma: gamma * _returns(rewards, dones, gamma),
            "the present reward is discounted too: a reward k steps ahead has the weight γᵏ, and now k is 0.",
        ),
        (
            _returns_cut_early,
            "you cut one step too early: dones[t] says that t was the last step of its episode, and its own reward "
            "belongs to it.",
        ),
        (
            lambda rewards, dones, gamma: _backwards(
                rewards, dones, gamma, lambda t, g, r, d, y: (r[t] + y * g) * (1 - d[t])
            ),
            "the last reward of an episode is lost: cut only what comes after it.",
        ),
        (
            lambda rewards, dones, gamma: np.asarray(rewards, float),
            "these are the rewards alone: what comes later is missing.",
        ),
    ),
)

# Exercise 2: TD errors with a time limit -------------------------------------------------------------------------


def _td(rewards, values, following, terminal, gamma):
    return np.asarray(rewards) + gamma * np.where(terminal, 0.0, following) - np.asarray(values)


def _after_reset(values):
    return np.append(values[1:], 0.0)


td_errors_with_time_limit = Exercise(
    name="td_errors_with_time_limit",
    reference=lambda rewards, values, next_values, dones, truncations, gamma: _td(
        rewards, values, next_values, dones & ~truncations, gamma
    ),
    cases={
        "it fell": {
            "rewards": np.array([1.0, 1.0, 2.0]),
            "values": np.array([4.0, 3.0, 1.5]),
            "next_values": np.array([3.0, 1.5, 7.0]),
            "dones": np.array([0, 0, 1], bool),
            "truncations": np.array([0, 0, 0], bool),
            "gamma": 0.5,
        },
        "the clock ran out": {
            "rewards": np.array([1.0, 1.0, 1.0, 1.0, 1.0]),
            "values": np.array([8.0, 9.0, 2.0, 5.0, 6.5]),
            "next_values": np.array([9.0, 10.0, 5.0, 6.5, 7.5]),
            "dones": np.array([0, 1, 0, 0, 0], bool),
            "truncations": np.array([0, 1, 0, 0, 0], bool),
            "gamma": 0.9,
        },
        "both": {
            "rewards": np.array([1.0, 2.0, 0.0, 1.0, 3.0]),
            "values": np.array([2.0, 4.0, 3.0, 5.0, 2.5]),
            "next_values": np.array([4.0, 6.0, 5.0, 1.0, 8.0]),
            "dones": np.array([0, 1, 0, 1, 1], bool),
            "truncations": np.array([0, 1, 0, 0, 1], bool),
            "gamma": 0.8,
        },
    },
    mistakes=(
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, values, next_values, dones, gamma
            ),
            "you treat the time limit as a fall. The clock stopped the game while the pole stood: the state reached "
            "is worth something.",
        ),
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, values, next_values, np.zeros(len(dones), bool), gamma
            ),
            "after a fall there is no next state, whatever the critic says about it: its value must not count.",
        ),
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, values, next_values, truncations, gamma
            ),
            "it is the other way round: which of the two endings leaves a state that is worth something?",
        ),
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, values, _after_reset(values), dones & ~truncations, gamma
            ),
            "values[t+1] is the value of what came after the reset: another episode. Which array knows the state "
            "that step t itself reached?",
        ),
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, 0 * values, next_values, dones & ~truncations, gamma
            ),
            "this is the target r + γV(s'). The error is how far the critic's V(s) was from it.",
        ),
        (
            lambda rewards, values, next_values, dones, truncations, gamma: _td(
                rewards, values, next_values, dones & ~truncations, 1.0
            ),
            "the next state's value counts in full: where does γ enter?",
        ),
    ),
)

# Exercise 3: n-step advantages -----------------------------------------------------------------------------------


def _n_step(rewards, values, dones, gamma, n, *, cut=True, bootstrap=True, baseline=True, power=0):
    results = np.zeros(len(rewards))
    for t in range(len(rewards)):
        total, weight, k = 0.0, 1.0, t
        while k < min(t + n, len(rewards)):
            total, weight, ended = total + weight * rewards[k], weight * gamma, bool(dones[k])
            k += 1
            if ended and cut:
                break
        if bootstrap and not (ended and cut):
            total += weight * gamma**power * values[k]
        results[t] = total - (values[t] if baseline else 0.0)
    return results


n_step_advantages = Exercise(
    name="n_step_advantages",
    reference=_n_step,
    cases={
        "n = 1": {
            "rewards": np.array([1.0, 0.0, 2.0, 4.0]),
            "values": np.array([2.0, 1.0, 3.0, 2.0, 5.0]),
            "dones": np.array([0, 0, 0, 0], bool),
            "gamma": 0.5,
            "n": 1,
        },
        "n = 2, two episodes": {
            "rewards": np.array([1.0, 2.0, 3.0, 1.0, 0.0]),
            "values": np.array([3.0, 4.0, 1.0, 6.0, 2.0, 4.0]),
            "dones": np.array([0, 0, 1, 0, 0], bool),
            "gamma": 0.9,
            "n": 2,
        },
        "n larger than the rollout": {
            "rewards": np.array([2.0, 1.0, 3.0]),
            "values": np.array([1.0, 2.0, 4.0, 3.0]),
            "dones": np.array([0, 0, 0], bool),
            "gamma": 0.8,
            "n": 10,
        },
    },
    mistakes=(
        (
            lambda **inputs: _n_step(**inputs, cut=False),
            "your sum runs across the end of an episode: after dones[k] neither a reward nor a value counts.",
        ),
        (
            lambda **inputs: _n_step(**inputs, bootstrap=False),
            "after n rewards the game goes on: add what the critic expects from there.",
        ),
        (
            lambda **inputs: _n_step(**inputs, baseline=False),
            "this is the n-step return. An advantage is how much better it is than V(s).",
        ),
        (
            lambda **inputs: _n_step(**inputs, power=1),
            "the critic's value is discounted once too often: n steps ahead the weight is γⁿ.",
        ),
        (
            lambda **inputs: _n_step(**inputs, power=-1),
            "the critic's value is discounted once too little: n steps ahead the weight is γⁿ.",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n + 1),
            "you take one reward too many: n = 1 is the TD error.",
        ),
    ),
)

# Diagnosis -------------------------------------------------------------------------------------------------------


def suspect_red(rewards, values, dones, gamma, gae_lambda):
    """One of the two suspects."""
    return _suspect(rewards, values, np.zeros(len(dones)), gamma, gae_lambda)


def suspect_blue(rewards, values, dones, gamma, gae_lambda):
    """One of the two suspects."""
    return _suspect(rewards, values, np.asarray(dones, float), gamma, gae_lambda)


def _suspect(rewards, values, ends, gamma, gae_lambda):
    """GAE; `values` has one entry more than `rewards`."""
    results, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        error = rewards[t] + gamma * values[t + 1] * (1 - ends[t]) - values[t]
        results[t] = following = error + gamma * gae_lambda * (1 - ends[t]) * following
    return results


which_leaks = Choice(
    name="which_leaks",
    right="red",
    explanations={
        "red": "It never looks at dones. Where the pole falls it carries on with the next episode's fresh start, so "
        "the fall, the one bad thing that can happen here, leaves no trace. Calm is how it looks when nothing is "
        "learned.",
        "blue": "The teeth are honest: the critic promised a future, and the pole fell. Change a later episode and "
        "no earlier advantage moves. Look again at what the test printed.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

quiz_lambda_one = Choice(
    name="quiz_lambda_one",
    right="b",
    explanations={
        "a": "The TD error is at the other end, λ = 0: one reward, and the critic for all the rest.",
        "b": "The critic's values cancel in the sum, all but the first: what is left is G − V(s). No critic can bias "
        "the comparison of two actions then; the noise of all later steps is the price.",
        "c": "V(s) is still subtracted, so the estimate does depend on the critic. But it shifts both actions alike.",
    },
)

quiz_more_data = Choice(
    name="quiz_more_data",
    right="c",
    explanations={
        "a": "Noise averages out, and so more rollouts can afford more of it. Which λ has the noise?",
        "b": "The curve for one rollout has its least error at one λ and the curve for many at another. Drag your "
        "own explorer again.",
        "c": "Averaging divides the variance and leaves the bias as it is. The more you average, the more it pays "
        "to choose the unbiased end.",
    },
)

quiz_time_limit = Choice(
    name="quiz_time_limit",
    right="a",
    explanations={
        "a": "The recursion must not run on into the next episode, but the state that was reached is still worth "
        "what the critic says: the pole was standing.",
        "b": "That teaches the critic that standing upright at step 500 is worth nothing, and it blames good pushes "
        "for the clock.",
        "c": "Then advantages of this episode would depend on the next one: the leak of the diagnosis lab.",
    },
)
