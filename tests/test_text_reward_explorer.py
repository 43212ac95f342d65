"""TextRewardExplorer: probabilities of whole words, the price of length, the best policy, against closed forms."""

import jax
import numpy as np
import pytest

from artifex_rl.data.scored_samples import load_scored_spellings
from artifex_rl.lab import TextRewardExplorer
from artifex_rl.lab.text_reward_explorer import compute_best_policy, compute_word_log_probs

KNOWN = load_scored_spellings()
COUNTED = np.arange(KNOWN.tokens.shape[1]) < KNOWN.lengths[:, None]


def word_log_probs(temperature=1.0):
    scaled = KNOWN.logits.astype(float) / temperature
    normalised = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(normalised, KNOWN.tokens[..., None], axis=-1)[..., 0]
    return np.where(COUNTED, chosen, 0.0).sum(axis=1)


@pytest.fixture(scope="module")
def explorer():
    return TextRewardExplorer()


def curves(explorer, **knobs):
    explorer.set(**{"temperature": 1.0, "top_p": 1.0, "length_coeff": 0.0, "beta": 0.1} | knobs)
    return explorer.curves()


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_a_word_has_the_sum_over_its_letters_and_its_end_at_the_temperature(explorer, temperature):
    drawn = curves(explorer, temperature=temperature)
    np.testing.assert_allclose(drawn["drawn"][:-1, 1], np.maximum(word_log_probs(temperature), -40), atol=2e-3)
    np.testing.assert_allclose(drawn["whole"][:-1, 1], np.maximum(word_log_probs(), -40), atol=2e-3)


def test_all_else_has_what_the_words_leave_over(explorer):
    whole = curves(explorer)["whole"]
    assert np.exp(whole[-1, 1]) == pytest.approx(1 - np.exp(word_log_probs()).sum(), abs=1e-5)


def test_with_top_p_a_word_is_possible_if_each_of_its_tokens_is(explorer):
    probs = np.exp(KNOWN.logits) / np.exp(KNOWN.logits).sum(axis=-1, keepdims=True)
    own = np.take_along_axis(probs, KNOWN.tokens[..., None], axis=-1)
    likelier = (probs * (probs > own)).sum(axis=-1)  # all that is likelier than the token
    for top_p in (0.5, 0.8, 0.94):
        possible = (~COUNTED | (likelier < top_p)).all(axis=1)
        drawn = curves(explorer, top_p=top_p)["drawn"][:-1, 1]
        np.testing.assert_array_equal(np.isfinite(drawn), possible)
        raised = (drawn >= np.maximum(word_log_probs(), -40) - 1e-3)[possible]
        assert raised.all(), "what is left over shares the probability of what was cut"


@pytest.mark.parametrize("price", [-1.0, 0.5])
def test_length_costs_its_logarithm(explorer, price):
    paid = curves(explorer, length_coeff=price)["paid"][1::3, 1]
    rewards = KNOWN.listed * np.where(KNOWN.rhymes == 1, 1.0, 0.1)
    np.testing.assert_allclose(paid[:-1], rewards - price * np.log(KNOWN.lengths + 1) / np.log(14), atol=1e-5)


@pytest.mark.parametrize("beta", [0.04, 0.16, 0.4])
def test_the_best_policy_beats_every_other_one(explorer, beta):
    """E[r] − β KL is highest there: moving a little probability between any two entries costs."""
    seen = curves(explorer, beta=beta)
    start, paid, best = np.exp(seen["whole"][:, 1]), seen["paid"][1::3, 1], seen["after"][1::3, 1].astype(float)
    assert best.sum() == pytest.approx(1, abs=1e-4)

    def objective(policy):
        return policy @ paid - beta * (policy * np.log(policy / start)).sum()

    best = np.maximum(best, 1e-12) / np.maximum(best, 1e-12).sum()
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = best * np.exp(0.3 * rng.normal(size=len(best)))
        assert objective(other / other.sum()) < objective(best) + 1e-6
    # and its value is β log Σ π_ref exp(r/β)
    assert objective(best) == pytest.approx(beta * np.log((start * np.exp(paid / beta)).sum()), abs=1e-3)


def test_without_a_reward_the_best_policy_is_the_reference():
    log_probs = np.log([0.2, 0.3, 0.5])
    np.testing.assert_allclose(compute_best_policy(log_probs, np.zeros(3), 0.1), [0.2, 0.3, 0.5], rtol=1e-5)


def test_equal_logits_give_each_word_of_n_tokens_the_nth_power():
    logits, tokens = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), int)
    found = jax.jit(compute_word_log_probs)(logits, tokens, np.array([1, 3]))
    np.testing.assert_allclose(found, -np.log(4) * np.array([1, 3]), rtol=1e-5)


def test_words_of_ones_own():
    logits = np.log(np.array([[[0.5, 0.5], [0.1, 0.9]], [[0.5, 0.5], [0.9, 0.1]]]))
    own = TextRewardExplorer(["ab", "a"], logits, [[0, 1], [1, 1]], [2, 1], [1.0, 0.0])
    np.testing.assert_allclose(own.curves()["whole"][:2, 1], np.log([0.45, 0.5]), rtol=1e-4)
    assert "ab" in own.summary()


GIVEN = {
    "words": ["a", "b"],
    "logits": np.zeros((2, 1, 3)),
    "tokens": [[0], [1]],
    "lengths": [1, 1],
    "rewards": [0, 1],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"words": ["a"]}, "words: got 1"),
        ({"tokens": None}, "got a part of them"),
        ({"logits": np.zeros((2, 3))}, "logits: got shape"),
        ({"tokens": [[0], [3]]}, "tokens: got some out of range"),
        ({"lengths": [0, 1]}, "lengths: got some out of range"),
        ({"rewards": [0, np.nan]}, "rewards: got 1 NaN"),
        ({"rewards": [0, 1, 2]}, "rewards: got shape"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        TextRewardExplorer(**GIVEN | change)
