"""Exercises of notebook 05. Its solutions are in here: work on the notebook first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.lab.checks import Choice, Number
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.exercises.draws import draw_mask, pick, tenths
from artifex_rl.lab.properties import implies, is_a_mean, unmoved_by
from artifex_rl.rl.losses import compute_dpo_loss, compute_simpo_loss

# Exercise 1: the log-probability of a response -------------------------------------------------------------------


def _draw_tokens(rng, size):
    """Log-probabilities of tokens; in the padding there is anything, −∞ too."""
    mask = draw_mask(rng, size, 4)
    padding = np.where(rng.random(mask.shape) < 0.5, -np.inf, tenths(rng, *mask.shape, low=-9.0, high=-4.0))
    return {"token_log_probs": np.where(mask, tenths(rng, *mask.shape, low=-3.0, high=-0.1), padding), "mask": mask}


@jax.jit
def _library_sum(token_log_probs, mask):
    """As `DPOTrainer` has it."""
    return jnp.sum(jnp.where(mask, token_log_probs, 0.0), axis=1)


def _sum_under(token_log_probs, mask):
    return np.asarray(_library_sum(token_log_probs, mask))


sequence_log_probs = Exercise(
    name="sequence_log_probs",
    title="How likely is a whole response?",
    minutes=6,
    difficulty="easy",
    task="""
A response is as likely as all its tokens together: probabilities are multiplied, so log-probabilities are added.
`token_log_probs` is `(B, T)`, and `mask` is true on the tokens of a response and false on the padding behind them.

Write `sequence_log_probs`, `(B,)`. In the padding there may be anything, $-\\infty$ too.
""",
    solution="""
def sequence_log_probs(token_log_probs, mask):
    return np.where(mask, token_log_probs, 0.0).sum(axis=1)
""",
    remark="""
`token_log_probs * mask` looks the same and is not: 0 · (−∞) is NaN, and one such token ruins the whole batch. Choose,
do not multiply.
""",
    reference=_sum_under,
    draw=_draw_tokens,
    axes=("response",),
    properties=(
        unmoved_by(
            "another number in the padding moves response {0}: only what is under the mask counts",
            lambda inputs: {"token_log_probs": np.where(inputs["mask"], inputs["token_log_probs"], -7.7)},
        ),
        implies(
            "a first token that is less likely by 1 should make response {0} less likely by 1",
            lambda inputs: {"token_log_probs": inputs["token_log_probs"] - np.eye(1, 4)},
            lambda result, inputs: result - 1.0,
        ),
    ),
    mistakes=(
        (
            lambda token_log_probs, mask: (token_log_probs * mask).sum(axis=1),
            "0 · (−∞) is not 0 but NaN: choose with the mask (`np.where`), do not multiply.",
        ),
        (
            lambda token_log_probs, mask: token_log_probs.sum(axis=1),
            "the mask is never looked at: padding counts like a token.",
        ),
        (
            lambda token_log_probs, mask: _sum_under(token_log_probs, mask) / mask.sum(axis=1),
            "this is the mean over the tokens. SimPO will want it; the probability of a response is the sum.",
        ),
        (
            lambda token_log_probs, mask: np.exp(_sum_under(token_log_probs, mask)),
            "this is the probability: stay in logarithms, else long responses are 0 in float32.",
        ),
        (
            lambda token_log_probs, mask: np.take_along_axis(
                token_log_probs, mask.sum(axis=1, keepdims=True) - 1, axis=1
            )[:, 0],
            "this is the last token alone.",
        ),
        (
            lambda token_log_probs, mask: np.where(~mask, token_log_probs, 0.0).sum(axis=1),
            "the mask is turned around: it is true on the tokens that count.",
        ),
    ),
)

# Exercise 2: DPO -------------------------------------------------------------------------------------------------

_library_dpo = jax.jit(compute_dpo_loss)
PAIR = ("chosen", "rejected", "ref_chosen", "ref_rejected")


def _draw_pairs(rng, size):
    """Pairs near the reference; and some on which the policy is as sure as can be, of the right or the wrong one."""
    pairs = {name: tenths(rng, size, low=-9.0, high=-1.0) for name in PAIR}
    if rng.random() < 0.2:
        pairs[pick(rng, "chosen", "rejected")] -= 9000.0
    return {**pairs, "beta": pick(rng, 0.1, 0.5, 1.0)}


def _sigmoid_loss(margin):
    """−log σ(β · margin), averaged."""
    return lambda chosen, rejected, ref_chosen, ref_rejected, beta: np.mean(
        np.logaddexp(0.0, -beta * margin(chosen, rejected, ref_chosen, ref_rejected))
    )


def _naive_dpo(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -np.mean(np.log(1 / (1 + np.exp(-beta * (chosen - ref_chosen - rejected + ref_rejected)))))


dpo_loss = Exercise(
    name="dpo_loss",
    title="DPO in two lines",
    minutes=12,
    difficulty="medium",
    task="""
Write `dpo_loss`, the mean of $-\\log \\sigma(\\beta h)$ over the pairs, with

$$h = \\log\\frac{\\pi(y_w|x)}{\\pi_\\text{ref}(y_w|x)} - \\log\\frac{\\pi(y_l|x)}{\\pi_\\text{ref}(y_l|x)} .$$

`chosen` and `rejected` are the `(B,)` log-probabilities of the responses under the policy, `ref_chosen` and
`ref_rejected` those under the reference. A policy may be very sure, and very wrong: the loss must still be a number.
""",
    solution="""
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    h = (chosen - ref_chosen) - (rejected - ref_rejected)
    return np.mean(np.logaddexp(0.0, -beta * h))   # −log σ(z) = log(1 + e⁻ᶻ), without ever computing e¹⁰⁰⁰
""",
    remark="""
In JAX it is `-jax.nn.log_sigmoid(beta * h).mean()`. Nothing in it asks that the *chosen* response become likelier:
only the difference counts. Keep that in mind for the diagnosis lab.
""",
    reference=_library_dpo,
    draw=_draw_pairs,
    properties=(
        implies(
            "where the policy is the reference it has learned nothing, and the loss is log 2; yours is not",
            lambda inputs: {"chosen": inputs["ref_chosen"], "rejected": inputs["ref_rejected"]},
            lambda result, inputs: np.log(2.0),
        ),
        implies(
            "a policy that is sure of the right one should have a loss near 0: is the sign of the margin right?",
            lambda inputs: {"chosen": inputs["rejected"] - inputs["ref_rejected"] + inputs["ref_chosen"] + 200.0},
            lambda result, inputs: 0.0,
        ),
        unmoved_by(
            "a response that is less likely under the policy and under the reference alike has changed nothing, and "
            "your loss moves: is the reference in it, with the right sign?",
            lambda inputs: {"chosen": inputs["chosen"] - 1.5, "ref_chosen": inputs["ref_chosen"] - 1.5},
        ),
        unmoved_by(
            "both responses less likely by the same leave the margin as it is, and your loss moves",
            lambda inputs: {"chosen": inputs["chosen"] - 1.5, "rejected": inputs["rejected"] - 1.5},
        ),
        is_a_mean(*PAIR),
    ),
    mistakes=(
        (
            lambda chosen, rejected, ref_chosen, ref_rejected, beta: _library_dpo(
                rejected, chosen, ref_rejected, ref_chosen, beta
            ),
            "chosen and rejected are swapped, or a minus is missing: this policy learns to say what was rejected.",
        ),
        (
            _sigmoid_loss(lambda chosen, rejected, ref_chosen, ref_rejected: chosen - rejected),
            "the reference is missing: what counts is how far the policy has gone from it.",
        ),
        (
            _sigmoid_loss(
                lambda chosen, rejected, ref_chosen, ref_rejected: chosen + ref_chosen - rejected - ref_rejected
            ),
            "the reference is added: a ratio is a difference of logarithms.",
        ),
        (
            lambda chosen, rejected, ref_chosen, ref_rejected, beta: _library_dpo(
                chosen, rejected, ref_chosen, ref_rejected, 1.0
            ),
            "where is β?",
        ),
        (
            lambda chosen, rejected, ref_chosen, ref_rejected, beta: _library_dpo(
                chosen, ref_rejected, ref_chosen, ref_rejected, beta
            ),
            "the rejected response is missing: a preference is between two.",
        ),
        (
            _naive_dpo,
            "e¹⁰⁰⁰ is ∞, and log 0 is −∞. −log σ(z) = log(1 + e⁻ᶻ): there are functions that compute it safely.",
        ),
        (
            lambda chosen, rejected, ref_chosen, ref_rejected, beta: (
                -_library_dpo(chosen, rejected, ref_chosen, ref_rejected, beta)
            ),
            "this is log σ, which should grow. A loss is −log σ.",
        ),
        (
            lambda *arguments: len(arguments[0]) * _library_dpo(*arguments),
            "this is the sum over the pairs: what is asked for is the mean.",
        ),
        (
            lambda chosen, rejected, ref_chosen, ref_rejected, beta: (
                -np.mean(1 / (1 + np.exp(-beta * (chosen - ref_chosen - rejected + ref_rejected))))
            ),
            "the logarithm is missing: −log σ, not −σ.",
        ),
    ),
)

# Exercise 3: SimPO -----------------------------------------------------------------------------------------------

_library_simpo = jax.jit(compute_simpo_loss)


def _simpo(chosen, rejected, chosen_lengths, rejected_lengths, beta, gamma_beta_ratio):
    return _library_simpo(
        chosen,
        rejected,
        chosen_lengths.astype(np.float32),
        rejected_lengths.astype(np.float32),
        beta,
        gamma_beta_ratio,
    )


def _draw_lengths(rng, size):
    lengths = {f"{side}_lengths": rng.integers(1, 9, size) for side in PAIR[:2]}
    return {
        **{name: tenths(rng, size, low=-9.0, high=-1.0) for name in PAIR[:2]},
        **lengths,
        "beta": pick(rng, 0.5, 2.0, 2.5),
        "gamma_beta_ratio": pick(rng, 0.25, 0.5, 1.0),
    }


def _simpo_of(margin):
    """The mean of `margin(chosen, rejected, their lengths, beta, gamma_beta_ratio)` through −log σ."""
    return lambda *arguments: np.mean(np.logaddexp(0.0, -margin(*arguments)))


simpo_loss = Exercise(
    name="simpo_loss",
    title="SimPO: no reference, but a margin",
    minutes=12,
    difficulty="medium",
    task="""
SimPO does without a reference. So that long responses are not unlikely merely for being long, it compares
log-probabilities *per token*, and it is content only when the chosen one leads by a margin:

$$-\\log \\sigma\\Big(\\beta \\Big[\\frac{\\log \\pi(y_w|x)}{|y_w|} - \\frac{\\log \\pi(y_l|x)}{|y_l|}
- \\frac{\\gamma}{\\beta}\\Big]\\Big)$$

Write `simpo_loss`, its mean over the pairs. `chosen` and `rejected` are *sums* over tokens, and `gamma_beta_ratio` is
$\\gamma/\\beta$.
""",
    solution="""
def simpo_loss(chosen, rejected, chosen_lengths, rejected_lengths, beta, gamma_beta_ratio):
    h = chosen / chosen_lengths - rejected / rejected_lengths - gamma_beta_ratio
    return np.mean(np.logaddexp(0.0, -beta * h))
""",
    remark="""
The paper's γ is the margin of β times the log-probabilities; the library, like the paper's own code, takes γ/β, so
that moving β does not move the margin in the units of log-probabilities.
""",
    reference=_simpo,
    draw=_draw_lengths,
    properties=(
        implies(
            "where both responses are as likely per token, and the margin is 0, the loss is log 2; yours is not",
            lambda inputs: {
                "chosen": -0.5 * inputs["chosen_lengths"],
                "rejected": -0.5 * inputs["rejected_lengths"],
                "gamma_beta_ratio": 0.0,
            },
            lambda result, inputs: np.log(2.0),
        ),
        implies(
            "a chosen response that is far likelier per token should have a loss near 0: is the sign right?",
            lambda inputs: {"chosen": inputs["chosen_lengths"] * (inputs["rejected"].max() + 100.0)},
            lambda result, inputs: 0.0,
        ),
        implies(
            "a larger margin asks for more, so the loss should grow, and yours does not as it should",
            lambda inputs: {
                "gamma_beta_ratio": 1000.0,
                "chosen": 0.0 * inputs["chosen"],
                "rejected": 0.0 * inputs["rejected"],
            },
            lambda result, inputs: 1000.0 * inputs["beta"],
        ),
        is_a_mean(*PAIR[:2], "chosen_lengths", "rejected_lengths"),
    ),
    mistakes=(
        (
            lambda c, r, nc, nr, beta, ratio: _simpo(c, r, np.ones(len(nc)), np.ones(len(nr)), beta, ratio),
            "the lengths are missing: a long response is unlikely merely for being long.",
        ),
        (
            lambda c, r, nc, nr, beta, ratio: _simpo(c, r, nc, nr, beta, 0.0),
            "the margin is missing: leading by a hair is not enough.",
        ),
        (
            lambda c, r, nc, nr, beta, ratio: _simpo(c, r, nc, nr, beta, -ratio),
            "the margin is added: then the chosen response may even lag behind.",
        ),
        (
            _simpo_of(lambda c, r, nc, nr, beta, ratio: beta * (c / nc - r / nr) - ratio),
            "the margin stands outside of β: what you have is γ/β, and γ would stand there.",
        ),
        (
            lambda c, r, nc, nr, beta, ratio: _simpo(r, c, nr, nc, beta, ratio),
            "chosen and rejected are swapped.",
        ),
        (
            _simpo_of(lambda c, r, nc, nr, beta, ratio: beta * ((c - r) / (nc + nr) - ratio)),
            "each response is divided by its own length.",
        ),
        (
            lambda c, r, nc, nr, beta, ratio: _simpo(c, r, nr, nc, beta, ratio),
            "the lengths are swapped.",
        ),
        (
            lambda *arguments: len(arguments[0]) * _simpo(*arguments),
            "this is the sum over the pairs: what is asked for is the mean.",
        ),
    ),
)

# Questions -------------------------------------------------------------------------------------------------------

ipo_target = Number(
    name="dpo_ipo_target",
    value=5.0,
    too_low="IPO's loss is (h − 1/(2β))²: where is it 0?",
    too_high="IPO's loss is (h − 1/(2β))²: where is it 0? There is a 2 beside β.",
    tolerance=0.01,
    mistakes=((10.0, "this is 1/β, where the hinge is content. Which factor stands beside β in IPO?"),),
)

dpo_red = Choice(
    name="dpo_red",
    right="a",
    explanations={
        "a": "The loss sees nothing but the difference, and the rejected falls faster than the chosen. Of fresh "
        "pairs as many are right as of those that it trains on, and people who contradict each other cannot all "
        "be right.",
        "b": "Then fresh pairs should be news to it. How many of them are the right way round?",
        "c": "Then it would have learned to say what people dislike. What do people say of the held-out words?",
    },
)

dpo_blue = Choice(
    name="dpo_blue",
    right="b",
    explanations={
        "a": "Of pairs that it has not seen it gets about as many right as a coin: what has it learned?",
        "b": "Its loader always begins at the first row: one batch, at every step, learned by heart. Every dial is "
        "measured on the very pairs that it remembers.",
        "c": "Then it would be worse than a coin on fresh pairs. Is it?",
    },
)

dpo_quiz_start = Choice(
    name="dpo_quiz_start",
    right="b",
    explanations={
        "a": "That is how it must be at step 0. But later? At β h = 0 every pair pushes with half of its weight, so "
        "the policy moves.",
        "b": "The margin is measured from a reference that moves with the policy, so it is 0 for ever, and nothing "
        "holds the policy back.",
        "c": "With a learning rate of 0 the gradient would still be there. It is not the only thing to look at: how "
        "is a margin of exactly 0 possible once the weights have moved?",
    },
)

dpo_quiz_beta = Choice(
    name="dpo_quiz_beta",
    right="c",
    explanations={
        "a": "A lower β is a *weaker* pull to the reference: a pair is content later.",
        "b": "How far must the margin grow until β h is 2?",
        "c": "DPO's β is an inverse: half of it, and the log-ratios must grow twice as far to be worth the same.",
    },
)

dpo_quiz_split = Choice(
    name="dpo_quiz_split",
    right="a",
    explanations={
        "a": "What the two sets share is what the figure cannot measure. Split by what will be new in use: the "
        "prompt, the author, the family, and not the row.",
        "b": "More of the same rows only makes the wrong figure more exact.",
        "c": "It says how well the policy knows rows that it has seen; how does that help with rows that it has not?",
    },
)
