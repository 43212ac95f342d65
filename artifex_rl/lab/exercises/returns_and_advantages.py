"""Exercises of notebook 01. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import numpy as np

from artifex_rl.lab.checks import Choice, Number
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import draw_dones, pick, tenths
from artifex_rl.lab.properties import implies, no_leak
from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages, compute_td_errors

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

_library_returns = jax.jit(compute_discounted_returns)


def _backwards(rewards, dones, gamma, step):
    results, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        following = results[t] = step(t, following, rewards, dones, gamma)
    return results


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
    title="Returns of several episodes",
    minutes=8,
    difficulty="easy",
    task="""
`my_returns` of section 2 believes that the whole stream is one episode. Write `returns_of_episodes`, in which the
return stops where `dones[t]` says that $t$ was the last step of its episode.
""",
    solution="""
def returns_of_episodes(rewards, dones, gamma):
    returns, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        if dones[t]:
            following = 0.0          # before the reward of t is added: that one still belongs here
        returns[t] = rewards[t] + gamma * following
        following = returns[t]
    return returns
""",
    reference=lambda rewards, dones, gamma: _library_returns(rewards, gamma, dones),
    draw=lambda rng, size: {
        "rewards": tenths(rng, size),
        "dones": draw_dones(rng, size),
        "gamma": pick(rng, 0.5, 0.8, 0.9),
    },
    properties=(
        no_leak("returns", "rewards", "dones"),
        implies(
            "your returns look back: another reward at t = 0 moves the return of t = {0}",
            lambda inputs: {"rewards": np.append(inputs["rewards"][0] + 1.7, inputs["rewards"][1:])},
            lambda result, inputs: np.append(np.nan, result[1:]),
        ),
        implies(
            "with γ = 0 a return is the reward itself, and yours at t = {0} is not",
            lambda inputs: {"gamma": 0.0},
            lambda result, inputs: inputs["rewards"],
        ),
        implies(
            "with γ = 1 and no end in sight a return is the sum of all that comes, and yours at t = {0} is not",
            lambda inputs: {"gamma": 1.0, "dones": np.zeros(len(inputs["dones"]), bool)},
            lambda result, inputs: np.cumsum(inputs["rewards"][::-1])[::-1],
        ),
    ),
    mistakes=(
        (
            lambda rewards, dones, gamma: _library_returns(rewards, gamma),
            "your returns run across the end of an episode: what should the step with dones[t] add from later?",
        ),
        (
            _returns_from_the_past,
            "you add up the past. A return looks forward: which step must be computed first?",
        ),
        (
            lambda rewards, dones, gamma: _library_returns(rewards, 1.0, dones),
            "every later reward counts in full: where does γ enter?",
        ),
        (
            lambda rewards, dones, gamma: gamma * _library_returns(rewards, gamma, dones),
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

_library_td_errors = jax.jit(compute_td_errors)


def _draw_time_limit(rng, size):
    dones = draw_dones(rng, size, often=True)
    return {
        "rewards": tenths(rng, size),
        "values": tenths(rng, size),
        "next_values": tenths(rng, size),
        "dones": dones,
        "truncations": dones & (rng.random(size) < 0.5),
        "gamma": pick(rng, 0.5, 0.8, 0.9),
    }


def _td(rewards, values, following, terminal, gamma):
    return np.asarray(rewards) + gamma * np.where(terminal, 0.0, following) - np.asarray(values)


def _after_reset(values):
    return np.append(values[1:], 0.0)


td_errors_with_time_limit = Exercise(
    name="td_errors_with_time_limit",
    title="The clock is not a fall",
    minutes=12,
    difficulty="medium",
    task="""
CartPole stops after 500 steps, even if the pole stands like a candle. That is a *truncation*: the episode is over
(`dones[t]` is true), but the state reached is still worth something. In `values[t+1]` you find the start of the next
episode, so the critic was asked before the reset too: `next_values[t]` is the value of the state that step $t$
reached.

Write `td_errors_with_time_limit`: no value after a fall, `next_values[t]` everywhere else. All arguments but
$\\gamma$ are arrays of one length, and `truncations[t]` implies `dones[t]`.
""",
    solution="""
def td_errors_with_time_limit(rewards, values, next_values, dones, truncations, gamma):
    fell = dones & ~truncations
    return rewards + gamma * np.where(fell, 0.0, next_values) - values
""",
    remark="""
The library takes the same two arrays: `compute_gae_advantages(..., truncations=..., next_values=...)`. At a
truncation it keeps the value *and* cuts the sum: two different things, and the commonest mistake is to do only one of
them.
""",
    reference=lambda rewards, values, next_values, dones, truncations, gamma: _library_td_errors(
        rewards, values, dones, gamma, truncations, next_values
    ),
    draw=_draw_time_limit,
    properties=(
        implies(
            "the value of the state after the fall at t = {0} counts: there is no state after a fall",
            lambda inputs: {"next_values": inputs["next_values"] + 1.7 * (inputs["dones"] & ~inputs["truncations"])},
            lambda result, inputs: np.where(inputs["dones"] & ~inputs["truncations"], result, np.nan),
        ),
        implies(
            "the clock ran out at t = {0}, and the state that was reached counts for nothing: "
            "its value next_values[{0}] moves your error too little",
            lambda inputs: {"next_values": inputs["next_values"] + 10.0 * inputs["truncations"]},
            lambda result, inputs: np.where(inputs["truncations"], result + 10.0 * inputs["gamma"], np.nan),
        ),
        implies(
            "your TD error at t = {0} changes with the value of another state: values[t] and next_values[t] are "
            "the two that step t asks for",
            lambda inputs: {"values": np.append(inputs["values"][:-1], inputs["values"][-1] + 1.7)},
            lambda result, inputs: np.append(result[:-1], np.nan),
        ),
        implies(
            "with γ = 0 a TD error is the reward less the value, and yours at t = {0} is not",
            lambda inputs: {"gamma": 0.0},
            lambda result, inputs: inputs["rewards"] - inputs["values"],
        ),
    ),
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


def _draw_steps(rng, size):
    """A rollout that may end within an episode: `values` has one entry more."""
    return {
        "rewards": tenths(rng, size),
        "values": tenths(rng, size + 1),
        "dones": draw_dones(rng, size),
        "gamma": pick(rng, 0.5, 0.8, 0.9),
    }


def _n_step(rewards, values, dones, gamma, n, *, cut=True, bootstrap=True, baseline=True, power=0):
    """The library has no n-step estimates. Their mean is its GAE (Schulman et al., eq. 16), which is tested."""
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
    title="Between one step and all steps",
    minutes=20,
    difficulty="harder",
    task="""
There is an older slider than $\\lambda$: take $n$ real rewards, and only then ask the critic,
$\\hat A^{(n)}_t = r_t + \\gamma r_{t+1} + \\dots + \\gamma^{n-1} r_{t+n-1} + \\gamma^n V(s_{t+n}) - V(s_t)$.

Write `n_step_advantages`. Within the $n$ steps an episode may end: then nothing after it counts. The rollout may
end too: `values` has one entry more than `rewards`, so ask the critic at the last state and stop there.
""",
    solution="""
def n_step_advantages(rewards, values, dones, gamma, n):
    advantages = np.zeros(len(rewards))
    for t in range(len(rewards)):
        total, weight, ended = -values[t], 1.0, False
        last = min(t + n, len(rewards))
        for k in range(t, last):
            total += weight * rewards[k]
            weight *= gamma
            if dones[k]:
                ended = True
                break
        advantages[t] = total if ended else total + weight * values[last]
    return advantages
""",
    remark="""
It is also the sum of the first n TD errors, weighted with γᵏ: all values but the first and the last cancel. GAE is
the mean over all n of these estimates, with the weights (1 − λ) λⁿ⁻¹: not one n, but a soft choice of all of them.
""",
    reference=_n_step,
    draw=lambda rng, size: {**_draw_steps(rng, size), "n": int(rng.integers(1, 6))},
    properties=(
        no_leak("advantages", "rewards", "values", "dones"),
        implies(
            "with n = 1 an advantage is the TD error, and yours at t = {0} is not",
            lambda inputs: {"n": 1},
            lambda result, inputs: _td(
                inputs["rewards"], inputs["values"][:-1], inputs["values"][1:], inputs["dones"], inputs["gamma"]
            ),
        ),
        implies(
            "a value of the critic that is higher by 1 everywhere, with γ = 1 and no end in sight, must cancel; "
            "at t = {0} it does not",
            lambda inputs: {
                "gamma": 1.0,
                "dones": np.zeros(len(inputs["dones"]), bool),
                "values": inputs["values"] + 1,
            },
            lambda result, inputs: _n_step(
                inputs["rewards"], inputs["values"], np.zeros(len(inputs["dones"]), bool), 1.0, inputs["n"]
            ),
        ),
    ),
    mistakes=(
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n, cut=False),
            "your sum runs across the end of an episode: after dones[k] neither a reward nor a value counts.",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n, bootstrap=False),
            "after n rewards the game goes on: add what the critic expects from there.",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n, baseline=False),
            "this is the n-step return. An advantage is how much better it is than V(s).",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n, power=1),
            "the critic's value is discounted once too often: n steps ahead the weight is γⁿ.",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n, power=-1),
            "the critic's value is discounted once too little: n steps ahead the weight is γⁿ.",
        ),
        (
            lambda rewards, values, dones, gamma, n: _n_step(rewards, values, dones, gamma, n + 1),
            "you take one reward too many: n = 1 is the TD error.",
        ),
    ),
)

# To check the GAE that section 4 writes --------------------------------------------------------------------------

_library_gae = jax.jit(compute_gae_advantages)


def _gae(rewards, values, dones, gamma, gae_lambda, *, value_ends=None, sum_ends=None):
    """GAE whose two cuts, of the value and of the sum, may be at different places."""
    value_ends = dones if value_ends is None else value_ends
    sum_ends = dones if sum_ends is None else sum_ends
    errors = _td(rewards, values[:-1], values[1:], value_ends, gamma)
    return _backwards(errors, sum_ends, gamma * gae_lambda, lambda t, a, e, d, y: e[t] + y * a * (1 - d[t]))


gae = Exercise(
    name="gae",
    title="Generalised advantages",
    minutes=15,
    difficulty="medium",
    task="""
Write `gae`: $\\hat A_t = \\delta_t + \\gamma\\lambda\\, \\hat A_{t+1}$, cut where `dones[t]` is true. `values` has
one entry more than `rewards`: the last is the value of the state that the rollout reached.
""",
    solution="""
def gae(rewards, values, dones, gamma, gae_lambda):
    advantages, following = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        goes_on = 0.0 if dones[t] else 1.0
        error = rewards[t] + gamma * goes_on * values[t + 1] - values[t]
        following = error + gamma * gae_lambda * goes_on * following
        advantages[t] = following
    return advantages
""",
    reference=_library_gae,
    draw=lambda rng, size: {**_draw_steps(rng, size), "gae_lambda": pick(rng, 0.3, 0.7, 0.9)},
    properties=(
        no_leak("advantages", "rewards", "values", "dones"),
        implies(
            "your advantages look back: another reward at t = 0 moves the advantage of t = {0}",
            lambda inputs: {"rewards": np.append(inputs["rewards"][0] + 1.7, inputs["rewards"][1:])},
            lambda result, inputs: np.append(np.nan, result[1:]),
        ),
        implies(
            "with γ = 0 an advantage is the reward less the value, and yours at t = {0} is not",
            lambda inputs: {"gamma": 0.0},
            lambda result, inputs: inputs["rewards"] - inputs["values"][:-1],
        ),
        implies(
            "with λ = 0 an advantage is the TD error, and yours at t = {0} is not",
            lambda inputs: {"gae_lambda": 0.0},
            lambda result, inputs: _td(
                inputs["rewards"], inputs["values"][:-1], inputs["values"][1:], inputs["dones"], inputs["gamma"]
            ),
        ),
        implies(
            "with λ = 1 an advantage is the return less the value, and yours at t = {0} is not",
            lambda inputs: {"gae_lambda": 1.0},
            lambda result, inputs: (
                _library_returns(inputs["rewards"], inputs["gamma"], inputs["dones"], inputs["values"][-1])
                - inputs["values"][:-1]
            ),
        ),
        implies(
            "twice the rewards and twice the values are twice the advantages, and at t = {0} yours are not",
            lambda inputs: {"rewards": 2 * inputs["rewards"], "values": 2 * inputs["values"]},
            lambda result, inputs: 2 * result,
        ),
    ),
    mistakes=(
        (
            lambda rewards, values, dones, gamma, gae_lambda: _gae(rewards, values, 0 * dones, gamma, gae_lambda),
            "dones is never looked at: where an episode ends, neither the next value nor the next advantage counts.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: _gae(
                rewards, values, dones, gamma, gae_lambda, sum_ends=0 * dones
            ),
            "the value is cut at the end of an episode, the sum of the errors is not.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: _gae(
                rewards, values, dones, gamma, gae_lambda, value_ends=0 * dones
            ),
            "the sum is cut at the end of an episode, but the value of the next episode's first state still counts.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: _gae(rewards, values, dones, gamma, 1.0),
            "λ is missing: how much does the error of the next step weigh?",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: _backwards(
                _td(rewards, values[:-1], values[1:], dones, gamma),
                dones,
                gae_lambda,
                lambda t, a, e, d, y: e[t] + y * a * (1 - d[t]),
            ),
            "errors are added up with λ alone: a step further away is also discounted.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: (
                _gae(rewards, values, dones, gamma, gae_lambda) + values[:-1]
            ),
            "these are the targets of the critic, advantage and value together.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: -_gae(rewards, values, dones, gamma, gae_lambda),
            "the sign is turned around: better than expected is positive.",
        ),
        (
            lambda rewards, values, dones, gamma, gae_lambda: _returns_from_the_past(
                _td(rewards, values[:-1], values[1:], dones, gamma), dones, gamma * gae_lambda
            ),
            "you add up the errors of the past. What came before an action is not its merit.",
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
