"""Exercises of notebook 11. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.lab.checks import Choice
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import draw_mask, pick, tenths
from artifex_rl.lab.properties import holds, implies, unmoved_by
from artifex_rl.lab.text_reward_explorer import compute_best_policy
from artifex_rl.rl.distributions import Categorical

# Exercise 1: where a response ends -------------------------------------------------------------------------------


def _mask(tokens, eos_id):
    """True up to the first end, and on it."""
    ends = tokens == eos_id
    return np.cumsum(ends, axis=1) - ends == 0


def _draw_tokens(rng, size):
    """Some rows without an end, some with several, and padding that is not always the end."""
    tokens, eos_id = rng.integers(1, 9, (size, 5)), int(pick(rng, 0, 3))
    tokens[rng.random((size, 5)) < 0.3] = eos_id
    return {"tokens": tokens, "eos_id": eos_id}


response_mask = Exercise(
    name="response_mask",
    title="Where a response ends",
    minutes=8,
    difficulty="easy",
    task="""
`tokens` is `(B, T)`. A response ends with its first `eos_id`, and the end is a token like others: it was drawn, it
has a probability, and it can be learnt. What stands behind it is padding, whatever it is.

Write `response_mask`, booleans `(B, T)`: true on every token of the response. One without an end was cut off, and all
of its tokens count.
""",
    solution="""
def response_mask(tokens, eos_id):
    ends = tokens == eos_id
    ends_before = np.cumsum(ends, axis=1) - ends  # how many ends stand to the left of each token
    return ends_before == 0
""",
    remark="""
`tokens != pad_id` is the shortcut that is seen most. It loses the end where the padding is the end's own id, as here
and in many a tokenizer; and a policy that is never told whether its ends were good never learns when to stop.
""",
    reference=_mask,
    draw=_draw_tokens,
    axes=("row", "token"),
    properties=(
        holds(
            "row {0}, token {1} is the first end, and it is left out",
            lambda result, inputs: ~_first_ends(inputs) | (result == 1),
        ),
        holds(
            "row {0}, token {1} stands behind the first end, and it counts",
            lambda result, inputs: _mask(**inputs) | (result == 0),
        ),
        holds(
            "row {0}, token {1} stands before any end, and it does not count",
            lambda result, inputs: ~_mask(**inputs) | (result == 1),
        ),
    ),
    mistakes=(
        (
            lambda tokens, eos_id: tokens != eos_id,
            "you ask each token for itself. Does what stands before it matter?",
        ),
        (
            lambda tokens, eos_id: np.cumsum(tokens == eos_id, axis=1) == 0,
            "the end itself is missing: it was drawn like every other token.",
        ),
        (
            lambda tokens, eos_id: _mask(tokens, eos_id) & (tokens == eos_id).any(axis=1, keepdims=True),
            "a response that was cut off has no end, and its tokens were drawn all the same.",
        ),
        (
            lambda tokens, eos_id: np.cumsum((tokens == eos_id)[:, ::-1], axis=1)[:, ::-1] > 0,
            "you go to the last end. A response is over at its first.",
        ),
        (lambda tokens, eos_id: ~_mask(tokens, eos_id), "true and false are the wrong way round."),
    ),
)


def _first_ends(inputs):
    return _mask(**inputs) & (inputs["tokens"] == inputs["eos_id"])


# Exercise 2: the probability of a response -----------------------------------------------------------------------


def _response_log_probs(logits, tokens, mask, temperature):
    return np.asarray(_library_log_probs(logits, tokens, mask, temperature))


@jax.jit
def _library_log_probs(logits, tokens, mask, temperature):
    return jnp.where(mask, Categorical(logits / temperature).log_prob(tokens), 0.0).sum(axis=1)


def _draw_responses(rng, size):
    logits = tenths(rng, size, 4, 3)
    return {
        "logits": logits,
        "tokens": rng.integers(0, 3, (size, 4)),
        "mask": draw_mask(rng, size, 4),
        "temperature": float(pick(rng, 0.5, 0.8, 2.0)),
    }


def _token_log_probs(logits, tokens, temperature=1.0):
    scaled = logits / temperature
    log_probs = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def _without_the_end(mask):
    """The mask without the last token of each response."""
    return mask & np.append(mask[:, 1:], np.zeros((len(mask), 1), bool), axis=1)


response_log_probs = Exercise(
    name="response_log_probs",
    title="The probability of a response",
    minutes=10,
    difficulty="medium",
    task="""
`logits` `(B, T, V)` are what the network said before each token, `tokens` `(B, T)` what was drawn, `mask` `(B, T)` is
true on the tokens of the response, the end included. They were drawn at `temperature`.

Write `response_log_probs`, `(B,)`: $\\log\\pi$ of each whole response, under the distribution *that it was drawn
from*.
""",
    solution="""
def response_log_probs(logits, tokens, mask, temperature):
    scaled = logits / temperature
    log_probs = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
    return np.where(mask, chosen, 0.0).sum(axis=1)
""",
    remark="""
The temperature goes into the logits *before* they are normalised: dividing log-probabilities by it gives numbers that
belong to no distribution. (With large logits subtract their maximum first, as `log_softmax` does.)
""",
    reference=lambda logits, tokens, mask, temperature: _response_log_probs(logits, tokens, mask, temperature),
    draw=_draw_responses,
    axes=("response",),
    properties=(
        unmoved_by(
            "the padding of response {0} has no part in it, and other logits there move the result",
            lambda inputs: {
                "logits": np.where(inputs["mask"][..., None], inputs["logits"], inputs["logits"][..., ::-1])
            },
        ),
        unmoved_by(
            "logits that are all higher by 2 are the same distribution, and response {0} has another probability",
            lambda inputs: {"logits": inputs["logits"] + 2.0},
        ),
        implies(
            "twice the logits at twice the temperature are the same draw, and response {0} has another probability",
            lambda inputs: {"logits": 2 * inputs["logits"], "temperature": 2 * inputs["temperature"]},
            lambda result, inputs: result,
        ),
        implies(
            "with all logits equal response {0} of n tokens has the probability 1/Vⁿ, and here it has another",
            lambda inputs: {"logits": np.zeros_like(inputs["logits"])},
            lambda result, inputs: -inputs["mask"].sum(axis=1) * np.log(inputs["logits"].shape[-1]),
        ),
    ),
    mistakes=(
        (
            lambda logits, tokens, mask, temperature: (
                _response_log_probs(logits, tokens, mask, temperature) / mask.sum(axis=1)
            ),
            "this is the mean over the tokens. Independent draws multiply, so their logarithms add up.",
        ),
        (
            lambda logits, tokens, mask, temperature: _response_log_probs(logits, tokens, mask, 1.0),
            "you score at temperature 1 what was drawn at another.",
        ),
        (
            lambda logits, tokens, mask, temperature: (
                np.where(mask, _token_log_probs(logits, tokens), 0.0).sum(axis=1) / temperature
            ),
            "you divide log-probabilities by the temperature. It belongs to the logits, before they are normalised.",
        ),
        (
            lambda logits, tokens, mask, temperature: _response_log_probs(logits, tokens, mask, 1 / temperature),
            "logits are divided by the temperature, not multiplied.",
        ),
        (
            lambda logits, tokens, mask, temperature: _response_log_probs(
                logits, tokens, np.ones_like(mask), temperature
            ),
            "the padding counts as well. Nobody drew it.",
        ),
        (
            lambda logits, tokens, mask, temperature: _response_log_probs(
                logits, tokens, _without_the_end(mask), temperature
            ),
            "the last token of each response is missing: its end was drawn as well.",
        ),
        (
            lambda logits, tokens, mask, temperature: np.where(
                mask, np.exp(_token_log_probs(logits, tokens, temperature)), 0.0
            ).sum(axis=1),
            "you add up probabilities. Independent draws multiply; their logarithms add up.",
        ),
        (
            lambda logits, tokens, mask, temperature: np.where(
                mask, np.take_along_axis(logits / temperature, tokens[..., None], axis=-1)[..., 0], 0.0
            ).sum(axis=1),
            "these are logits, and belong to no distribution before they are normalised.",
        ),
    ),
)

# Exercise 3: what the leash allows -------------------------------------------------------------------------------


def _with_all_else(ref_log_probs, rewards):
    """The words, and one entry for all that is not among them: it is paid nothing."""
    rest = np.log1p(-np.exp(ref_log_probs).sum())
    return np.append(ref_log_probs, rest), np.append(rewards, 0.0)


_library_best = jax.jit(compute_best_policy)


def _best(ref_log_probs, rewards, beta):
    return np.asarray(_library_best(*_with_all_else(ref_log_probs, rewards), beta))[:-1]


def _draw_words(rng, size):
    """Log-probabilities in tenths that leave something over for all else."""
    return {
        "ref_log_probs": -np.round(np.log(size) + rng.uniform(0.3, 3.0, size), 1) - 0.1,
        "rewards": tenths(rng, size, low=-1.0, high=2.0),
        "beta": float(pick(rng, 0.5, 1.0, 2.0)),
    }


def _bent(bend):
    """`bend(log π_ref, r, β)` as logits over the words and all else, normalised."""

    def best(ref_log_probs, rewards, beta):
        weights = np.exp(bend(*_with_all_else(ref_log_probs, rewards), beta))
        return (weights / weights.sum())[:-1]

    return best


best_policy = Exercise(
    name="best_policy",
    title="What the leash allows",
    minutes=12,
    difficulty="harder",
    task="""
The policy that maximises $\\mathbb E[r] - \\beta\\,\\text{KL}$ is known:
$\\pi^* \\propto \\pi_\\text{ref}\\, e^{r/\\beta}$. A few words are paid, `rewards` `(W,)`, and `ref_log_probs` `(W,)`
says how probable they were at the start. *Everything else* that could be written, with all of the probability that is
left over, is paid 0.

Write `best_policy`, the probabilities `(W,)` of these words under $\\pi^*$.
""",
    solution="""
def best_policy(ref_log_probs, rewards, beta):
    weights = np.exp(ref_log_probs + rewards / beta)
    all_else = 1 - np.exp(ref_log_probs).sum()  # its reward is 0, and exp(0) is 1
    return weights / (weights.sum() + all_else)
""",
    remark="""
Paid words win when $\\pi_\\text{ref} e^{r/\\beta}$ outweighs the rest, that is, when $\\beta$ is below
$r / \\log(1/\\pi_\\text{ref})$: an idea that comes once in 450 words and is paid 1 needs a β below about 1/6. And
among words that are paid alike, the proportions stay those of the reference: a leash does not flatten, it *keeps*.
""",
    reference=_best,
    draw=_draw_words,
    axes=("word",),
    properties=(
        implies(
            "where nothing is paid the best policy is the reference, and word {0} has another probability",
            lambda inputs: {"rewards": np.zeros_like(inputs["rewards"])},
            lambda result, inputs: np.exp(inputs["ref_log_probs"]),
        ),
        holds(
            "the probabilities of the words add up to 1 or more: nothing is left for all else",
            lambda result, inputs: result.sum() < 1 - 1e-6,
        ),
        implies(
            "twice the rewards under twice the leash are the same trade, and word {0} has another probability",
            lambda inputs: {"rewards": 2 * inputs["rewards"], "beta": 2 * inputs["beta"]},
            lambda result, inputs: result,
        ),
    ),
    mistakes=(
        (
            lambda ref_log_probs, rewards, beta: np.exp(
                Categorical(jnp.asarray(ref_log_probs + rewards / beta)).log_probs
            ),
            "these words are not all that there is: what of everything else?",
        ),
        (_bent(lambda ref, r, beta: ref + r * beta), "a *small* β is a long leash: the reward is divided by it."),
        (_bent(lambda ref, r, beta: ref - r / beta), "what is paid more should become more probable."),
        (_bent(lambda ref, r, beta: ref + r), "β is not looked at."),
        (_bent(lambda ref, r, beta: r / beta), "where did it start? The reference is missing."),
        (_bent(lambda ref, r, beta: ref / beta + r / beta), "β divides the reward alone."),
        (
            lambda ref_log_probs, rewards, beta: np.exp(ref_log_probs + rewards / beta),
            "these are the weights. Probabilities add up to 1, with all else.",
        ),
    ),
)

# Diagnosis lab: two leashes ---------------------------------------------------------------------------------------

text_red = Choice(
    name="text_red",
    right="b",
    explanations={
        "a": "Its reward is perfect and its leash looks short. Whose unit is the leash in?",
        "b": "It averages log π − log π_ref over the tokens. That is no divergence of words: such scores would give "
        "all words together a probability above 1. The leash is as many times too long as a word has tokens, and one "
        "or two words are left.",
        "c": "Its rewards come from the same list as the other's. What differs is what is subtracted.",
    },
)

text_blue = Choice(
    name="text_blue",
    right="a",
    explanations={
        "a": "Seven nats look like a lot. A rhyme came once in hundreds of words, so at least log(hundreds) nats are "
        "what it costs to say one every time: the distance is the price, and the words are many.",
        "b": "Add up its scores over all words of the list: they stay below 1, as probabilities do.",
        "c": "It is paid a little less than the other: now and then it writes something else. Is that a fault?",
    },
)

# Quiz -------------------------------------------------------------------------------------------------------------

text_quiz_sum = Choice(
    name="text_quiz_sum",
    right="c",
    explanations={
        "a": "A mean makes long and short responses comparable, and that is exactly what a probability does not do: "
        "a long response is less probable because it is long.",
        "b": "The largest term says where the surprise was. A response needs all of its tokens.",
        "c": "Each token was drawn given those before it, so the probabilities multiply and the logarithms add up, "
        "the end's too.",
    },
)

text_quiz_temperature = Choice(
    name="text_quiz_temperature",
    right="b",
    explanations={
        "a": "The draws came from another distribution than the one that is scored. What is the mean of its score?",
        "b": "At 0.7 the likely is drawn more often than π₁ says, so even a reward that is the same for all makes it "
        "likelier still: the policy sharpens itself for no reason. Score at the temperature that was drawn at.",
        "c": "A temperature is a factor on the logits, of every letter. Does it know about ends?",
    },
)

text_quiz_length = Choice(
    name="text_quiz_length",
    right="a",
    explanations={
        "a": "A long word is a better bargain than a rare rhyme, and the optimiser takes the better bargain. Make "
        "the wish worth more than the stuffing, or give length a price.",
        "b": "It was paid as agreed, and it learnt what was paid.",
        "c": "A shorter leash keeps words near what they were. But what is paid for stays what it is.",
    },
)
