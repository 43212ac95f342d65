"""Exercises of notebook 03. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.lab.answers import Told, as_numbers, measure_with_gradients
from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import pick, tenths
from artifex_rl.lab.properties import Property, implies, is_a_mean, sign, unmoved_by
from artifex_rl.rl import onpolicy
from artifex_rl.rl.losses import compute_clipped_surrogate_loss

# Exercise 1: the clipped surrogate -------------------------------------------------------------------------------


def _draw_ratios(rng, size):
    """Log-ratios well inside and well outside of the clip, on both sides; never on its edge."""
    log_ratios = rng.choice([-0.9, -0.5, -0.05, 0.0, 0.05, 0.4, 0.8], size)
    old = tenths(rng, size, low=-3.0, high=-1.0)
    return {
        "log_probs": (old + log_ratios).round(2),
        "old_log_probs": old,
        "advantages": tenths(rng, size, low=-2.0, high=2.0),
        "clip_param": pick(rng, 0.1, 0.2, 0.3),
    }


def _surrogate(bound):
    """A loss whose terms are `bound(ratio, clipped ratio, advantage)`."""

    def loss(log_probs, old_log_probs, advantages, clip_param):
        ratio = jnp.exp(log_probs - old_log_probs)
        return -jnp.mean(bound(ratio, jnp.clip(ratio, 1 - clip_param, 1 + clip_param), advantages))

    return loss


def _all_at(log_ratio, advantage):
    """Every sample with this log-ratio and this advantage."""

    def change(inputs):
        old = inputs["old_log_probs"]
        return {"log_probs": old + log_ratio, "advantages": np.full(len(old), advantage)}

    return change


clipped_surrogate_loss = Exercise(
    name="clipped_surrogate_loss",
    title="The clipped surrogate",
    minutes=15,
    difficulty="medium",
    task="""
With $\\rho = \\pi(a|s) / \\pi_\\text{old}(a|s)$ PPO maximises the mean of
$\\min\\big(\\rho A,\\; \\text{clip}(\\rho, 1-\\varepsilon, 1+\\varepsilon)\\, A\\big)$.

Write `clipped_surrogate_loss`, the scalar that an optimiser makes *smaller*. What you get are log-probabilities,
`(B,)` arrays of JAX, and `clip_param` is $\\varepsilon$. The check differentiates what you write, so use `jnp`.
""",
    solution="""
def clipped_surrogate_loss(log_probs, old_log_probs, advantages, clip_param):
    ratio = jnp.exp(log_probs - old_log_probs)
    clipped = jnp.clip(ratio, 1 - clip_param, 1 + clip_param)
    return -jnp.mean(jnp.minimum(ratio * advantages, clipped * advantages))
""",
    remark="""
Say it in four words for each corner: good action, ratio already high: stop. Good and low: push. Bad and low: stop.
Bad and high: push, and here the minimum keeps the gradient that a clip alone would have taken away.
""",
    reference=jax.jit(compute_clipped_surrogate_loss),
    draw=_draw_ratios,
    axes=("row",),
    measure=measure_with_gradients("log_probs"),
    sizes=(1, 2, 4),
    properties=(
        sign(
            "the gradient points the wrong way: downhill on your loss makes good actions less likely",
            "the gradient by log_probs",
        ),
        implies(
            "where the policy has not moved yet every ratio is 1, and the loss is minus the mean advantage; "
            "yours is not",
            lambda inputs: {"log_probs": inputs["old_log_probs"]},
            lambda result, inputs: -inputs["advantages"].mean(),
        ),
        implies(
            "a good action that has become far more likely is still paid for becoming more so: the ratio is not "
            "clipped from above",
            _all_at(1.0, 1.0),
            lambda result, inputs: -(1 + inputs["clip_param"]),
        ),
        implies(
            "a bad action that has become far less likely is still paid for becoming less so: the ratio is not "
            "clipped from below",
            _all_at(-1.0, -1.0),
            lambda result, inputs: 1 - inputs["clip_param"],
        ),
        implies(
            "a bad action that has become far more likely must cost all of its ratio, and here it is clipped: "
            "minimum or maximum?",
            _all_at(1.0, -1.0),
            lambda result, inputs: np.e,
        ),
        is_a_mean("log_probs", "old_log_probs", "advantages"),
    ),
    mistakes=(
        (
            lambda *arguments: -compute_clipped_surrogate_loss(*arguments),
            "this is the objective, which should grow. A loss is to be made smaller.",
        ),
        (
            _surrogate(lambda ratio, clipped, a: jnp.maximum(ratio * a, clipped * a)),
            "the maximum is the optimist's bound. PPO takes the worse of the two.",
        ),
        (
            _surrogate(lambda ratio, clipped, a: clipped * a),
            "only the clipped term is there. A step in the wrong direction then has no gradient that leads back.",
        ),
        (
            _surrogate(lambda ratio, clipped, a: ratio * a),
            "nothing is clipped: the policy may go as far as it likes.",
        ),
        (
            lambda log_probs, old_log_probs, advantages, clip_param: compute_clipped_surrogate_loss(
                log_probs, old_log_probs, advantages, 1.0, None, clip_param
            ),
            "the clip has an upper end and no lower one.",
        ),
        (
            lambda log_probs, old_log_probs, advantages, clip_param: compute_clipped_surrogate_loss(
                log_probs, old_log_probs, advantages, clip_param, None, 1e6
            ),
            "the clip has a lower end and no upper one.",
        ),
        (
            lambda log_probs, old_log_probs, advantages, clip_param: compute_clipped_surrogate_loss(
                2 * old_log_probs - log_probs, old_log_probs, advantages, clip_param
            ),
            "the ratio is upside down: new over old.",
        ),
        (
            lambda log_probs, old_log_probs, advantages, clip_param: (
                len(log_probs) * compute_clipped_surrogate_loss(log_probs, old_log_probs, advantages, clip_param)
            ),
            "this is the sum over the samples: what is asked for is the mean.",
        ),
    ),
)

# Exercise 2: explained variance ----------------------------------------------------------------------------------

_library_explained = jax.jit(lambda values, returns: onpolicy.explained_variance(values, returns, returns == returns))


def _draw_values(rng, size):
    """Some returns that do not vary, and some critics that are right but for a constant."""
    returns = tenths(rng, size + 1)
    if rng.random() < 0.15:
        returns = np.full(size + 1, 0.5)
    values = returns + 1.5 if rng.random() < 0.15 else tenths(rng, size + 1)
    return {"values": values, "returns": returns}


def _share(part):
    """`part(values, returns)` over the variance of the returns, or 0 where these do not vary."""
    return lambda values, returns: part(values, returns) / np.var(returns) if np.ptp(returns) else 0.0


explained_variance = Exercise(
    name="explained_variance",
    title="Is the critic worth its name?",
    minutes=8,
    difficulty="easy",
    task="""
The first thing to look at when PPO does not learn: which share of how the returns differ does the critic explain,
$1 - \\text{Var}(R - V) \\,/\\, \\text{Var}(R)$?

Write `explained_variance` for two `(B,)` arrays. Where the returns do not vary there is nothing to explain: return 0.
""",
    solution="""
def explained_variance(values, returns):
    if np.var(returns) == 0:
        return 0.0
    return 1 - np.var(returns - values) / np.var(returns)
""",
    remark="""
1 is a perfect critic, 0 one that says the same of every state, and below 0 it is worse than saying nothing. A critic
that is wrong by a constant still gets 1: the advantages are normalised anyway.
""",
    reference=_library_explained,
    draw=_draw_values,
    properties=(
        Property(
            "constant returns",
            lambda trial: (
                "these returns do not vary, and there is nothing to explain: needs 0"
                if np.ptp(trial.inputs["returns"]) == 0 and not abs(trial.result) < 1e-3
                else None
            ),
        ),
        implies(
            "a critic that is right everywhere explains everything, and yours does not get 1",
            lambda inputs: {"values": inputs["returns"]} if np.ptp(inputs["returns"]) else None,
            lambda result, inputs: 1.0,
        ),
        implies(
            "a critic that says the same of every state explains nothing, and does not get 0",
            lambda inputs: {"values": np.full(len(inputs["returns"]), 0.5)},
            lambda result, inputs: 0.0,
        ),
        unmoved_by(
            "a critic that is higher by 3 everywhere has another explained variance: is it the variance of the error "
            "that you take, and not its square?",
            lambda inputs: {"values": inputs["values"] + 3.0},
        ),
        unmoved_by(
            "in another unit, ten times as small, the explained variance is another",
            lambda inputs: {"values": 10 * inputs["values"], "returns": 10 * inputs["returns"]},
        ),
    ),
    mistakes=(
        (
            lambda values, returns: (
                1 - _share(lambda v, r: np.mean((r - v) ** 2))(values, returns) if np.ptp(returns) else 0.0
            ),
            "this is R²: it blames the critic for a constant error too.",
        ),
        (
            _share(lambda values, returns: np.var(returns - values)),
            "this is the share that is left over: 0 for a perfect critic.",
        ),
        (
            lambda values, returns: (
                1 - np.var(returns - values) / max(np.var(values), 1e-12) if np.ptp(returns) else 0
            ),
            "you divide by the variance of the critic. What is there to explain is that of the returns.",
        ),
        (
            _share(lambda values, returns: np.var(values)),
            "a critic that varies a lot explains a lot only if it varies *with* the returns: look at the error.",
        ),
        (
            lambda values, returns: (
                1 - np.sqrt(1 - float(_library_explained(values, returns))) if np.ptp(returns) else 0.0
            ),
            "these are standard deviations: variances were asked for.",
        ),
        (
            lambda values, returns: 1 - np.var(returns - values) / (np.var(returns) + 1e-8),
            "where the returns do not vary a tiny denominator is no way out: return 0 there.",
        ),
    ),
)

# Exercise 3: minibatches -----------------------------------------------------------------------------------------


def _library_minibatches(order, num_minibatches):
    """The rows that `PPOTrainer` trains on: its slots, filled with the permutation."""
    slots, is_real = onpolicy.cut_evenly(len(order), num_minibatches)
    return [order[np.asarray(slot)[np.asarray(real)]] for slot, real in zip(slots, is_real, strict=True)]


def _draw_order(rng, size):
    num_minibatches = int(pick(rng, 1, 2, 3, 4))
    rows = num_minibatches * size + int(rng.integers(num_minibatches))
    return {"order": rng.permutation(rows), "num_minibatches": num_minibatches}


def _row_by_row(function, inputs):
    """A list of arrays as one: how many there are, how long they are, and the rows in their order."""
    parts = function(**inputs)
    if parts is None or parts is Ellipsis:
        return None
    parts = [as_numbers(part) for part in parts] if isinstance(parts, list | tuple | np.ndarray) else [np.zeros(())]
    if any(part.ndim != 1 or part.dtype == object for part in parts):
        raise Told("✗ needs a list of minibatches, each an array of rows; it returns something else.", dict(inputs))
    wanted, rows = inputs["num_minibatches"], len(inputs["order"])
    lengths = np.array([len(part) for part in parts], float)
    together = np.concatenate([*parts, np.zeros(0)])
    return {
        "the number of minibatches": np.array(float(len(parts))),
        "the length of minibatch": np.resize(np.append(lengths, np.full(wanted, -1.0)), wanted),
        "the row at place": np.resize(np.append(together, np.full(rows, -1.0)), rows),
        "the number of rows in all": np.array(float(len(together))),
    }


def _covered(trial):
    rows, places = len(trial.inputs["order"]), trial.results["the row at place"]
    missing = [row for row in range(rows) if row not in places]
    if missing:
        return f"row {missing[0]} is in no minibatch: what was collected there is thrown away"
    too_many = trial.results["the number of rows in all"] > rows
    return "some rows are in two minibatches: in an epoch every row comes once" if too_many else None


def _counted(trial):
    got, needed = float(trial.results["the number of minibatches"]), trial.inputs["num_minibatches"]
    return None if got == needed else f"there are {got:.0f} minibatches, and num_minibatches is {needed}"


def _even(trial):
    lengths = trial.results["the length of minibatch"]
    uneven = lengths.max() - lengths.min() > 1
    return "one minibatch is longer than another by more than one row" if uneven else None


def _longer_first(trial):
    lengths = trial.results["the length of minibatch"]
    return (
        "a longer minibatch follows a shorter one: the first ones are longer"
        if (np.diff(lengths) > 0).any()
        else None
    )


def _in_order(trial):
    (places,) = np.nonzero(trial.results["the row at place"] != trial.inputs["order"])
    return (
        f"one after another, your minibatches should be `order`; at place {places[0]} they are not"
        if len(places)
        else None
    )


minibatches = Exercise(
    name="minibatches",
    title="Every row exactly once",
    minutes=10,
    difficulty="easy",
    task="""
An epoch of PPO looks at every collected row exactly once, in minibatches drawn without replacement. `order` is a
permutation of the rows, as `rng.permutation(B)` gives it.

Write `minibatches`: a list of `num_minibatches` arrays, `order` cut into consecutive parts. Where the division leaves
a remainder, the first parts are longer by one row. No row is lost.
""",
    solution="""
def minibatches(order, num_minibatches):
    size, longer = divmod(len(order), num_minibatches)
    parts, start = [], 0
    for i in range(num_minibatches):
        end = start + size + (i < longer)
        parts.append(order[start:end])
        start = end
    return parts
""",
    remark="""
`np.array_split(order, num_minibatches)` does the same. Many an implementation cuts with `range(0, B, B // n)`: with a
remainder that makes a tiny minibatch at the end, whose gradient counts as much as that of the others.
""",
    reference=_library_minibatches,
    draw=_draw_order,
    measure=_row_by_row,
    properties=(
        Property("as many as asked for", _counted),
        Property("every row exactly once", _covered),
        Property("of even length", _even),
        Property("the first ones longer", _longer_first),
        Property("in order", _in_order),
    ),
    mistakes=(
        (
            lambda order, num_minibatches: [
                order[i * (len(order) // num_minibatches) :][: len(order) // num_minibatches]
                for i in range(num_minibatches)
            ],
            "the remainder of the division is lost: B // n rows in each of n parts are not always B.",
        ),
        (
            lambda order, num_minibatches: np.array_split(np.arange(len(order)), num_minibatches),
            "you cut the rows as they were collected, and never look at `order`: neighbours in time stay together.",
        ),
        (
            lambda order, num_minibatches: [order[i::num_minibatches] for i in range(num_minibatches)],
            "every n-th row is as good a minibatch, and not the one that was asked for: cut consecutive parts.",
        ),
        (
            lambda order, num_minibatches: [
                order[i : i + len(order) // num_minibatches]
                for i in range(0, len(order), len(order) // num_minibatches)
            ],
            "steps of B // n leave a small minibatch at the end. Give its rows to the first ones.",
        ),
        (
            lambda order, num_minibatches: np.split(
                order, [(i + 1) * (len(order) // num_minibatches) for i in range(num_minibatches - 1)]
            ),
            "the whole remainder goes to the last minibatch: share it out, one row to each.",
        ),
        (
            lambda order, num_minibatches: [order for _ in range(num_minibatches)],
            "each minibatch is the whole batch: that is full-batch training, several times.",
        ),
        (
            lambda order, num_minibatches: np.array_split(np.sort(order), num_minibatches)[::-1],
            "the rows are sorted again: then the permutation was for nothing.",
        ),
    ),
)

# Diagnosis -------------------------------------------------------------------------------------------------------

_NOTICED = "when the policy was moved by hand it saw so, and its loss fell."

ppo_red = Choice(
    name="ppo_red",
    right="a",
    explanations={
        "a": "One epoch of one minibatch: the ratio is looked at once for each batch, before the policy has moved, "
        "and is 1. PPO is then the plain policy gradient with a critic. It is slow, and it is right.",
        "b": f"It looks so, but {_NOTICED} How often does this trainer look at a batch?",
        "c": f"It is slow, not perverse: {_NOTICED}",
    },
)

ppo_blue = Choice(
    name="ppo_blue",
    right="b",
    explanations={
        "a": "A KL of 0 to the last bit, for a policy that had been moved by hand? Ask the test again.",
        "b": "The old log-probabilities are taken from the policy in training, so every ratio is 1, whatever it "
        "does: nothing is ever clipped and every KL is 0. Each batch is trusted without a limit.",
        "c": "Then its loss would rise when good actions become likelier. What did it do?",
    },
)

ppo_grey = Choice(
    name="ppo_grey",
    right="a",
    explanations={
        "a": "Every episode lasts 500 steps, all states are worth the same, and the value loss is next to nothing. "
        "Where the returns hardly differ there is nothing to explain, and a tiny error divided by a tinier variance "
        "is a large number.",
        "b": f"Its clip fraction falls with its learning rate, and {_NOTICED}",
        "c": f"Its critic has an ugly dial, but the policy is asked here: {_NOTICED}",
    },
)

ppo_green = Choice(
    name="ppo_green",
    right="c",
    explanations={
        "a": "All its dials are pretty. Dials say how far an update goes and how much the critic foresees, and none "
        "of them says in which direction it goes. What did the loss do when good actions became likelier?",
        "b": "Its ratios and its KL are alive. What did its loss do when good actions became likelier?",
        "c": "The loss rises when good actions become likelier: the surrogate has the wrong sign. It learns to fall "
        "as fast as it can, and nothing is easier to foresee: so its critic is splendid.",
    },
)

# Quiz ------------------------------------------------------------------------------------------------------------

ppo_quiz_corner = Choice(
    name="ppo_quiz_corner",
    right="b",
    explanations={
        "a": "A clip alone would do that. PPO takes the smaller of two terms: with A < 0, which of −1.4 and −1.2 is "
        "it?",
        "b": "Wrong direction, so nothing stops it: the minimum keeps the term that is not clipped, and its gradient "
        "makes the action rarer.",
        "c": "The advantage is negative: where does its sign lead?",
    },
)

ppo_quiz_zero_loss = Choice(
    name="ppo_quiz_zero_loss",
    right="a",
    explanations={
        "a": "Every ratio is 1, so the loss is minus the mean of the advantages, and they were normalised to mean 0. "
        "Its gradient is the policy gradient, and is not 0.",
        "b": "A function may be 0 at a place where it is steep. What is the gradient of the ratio at 1?",
        "c": "The policy has not moved yet: what should there be to clip?",
    },
)

ppo_quiz_knob = Choice(
    name="ppo_quiz_knob",
    right="c",
    explanations={
        "a": "A wider clip lets it go further still. The KL says that it goes too far already.",
        "b": "More epochs are more steps on the same batch, away from the policy that collected it.",
        "c": "Smaller steps, or fewer of them. The clip takes the reward away for going further, but it pulls nobody "
        "back, and a large step jumps right over it.",
    },
)
