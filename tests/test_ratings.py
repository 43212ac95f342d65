"""Ten people's ratings of words: what the file says, an honest split, pairs with their disagreement, the ceiling."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import DPOConfig, DPOTrainer
from artifex_rl.data import (
    Ratings,
    compute_agreement,
    compute_agreement_ceiling,
    compute_word_log_probs,
    draw_pairs,
    load_ratings,
    pretrained_words,
    rating_vocabulary,
)
from artifex_rl.data.make_pretrained_words import fit_words
from artifex_rl.data.ratings import FAMILY_LETTERS

THREE = Ratings(("good", "fine", "bad"), np.array([[3, 2, 3, 1], [1, 2, 0, 1], [-2, -2, 1, -3]], np.int8))


# The ratings and their split


def test_ratings_are_those_of_the_published_lexicon():
    """Its first letters of the alphabet: means and ratings as printed in vader_lexicon.txt."""
    rated = {
        word: row for part in load_ratings() for word, row in zip(part.words, part.ratings.tolist(), strict=True)
    }
    assert rated["abandon"] == [-1, -2, -2, -2, -2, -3, -2, -2, -1, -2]
    assert np.mean(rated["good"]) == 1.9 and np.mean(rated["terrible"]) == pytest.approx(-2.1)
    assert len(rated) > 6000
    for part in load_ratings():
        assert part.ratings.shape == (len(part.words), 10) and part.ratings.dtype == np.int8
        assert part.ratings.min() == -4 and part.ratings.max() == 4


@pytest.mark.parametrize("hold_out", ["words", "families"])
def test_about_a_tenth_is_held_out_and_no_word_is_in_both_parts(hold_out):
    train, heldout = load_ratings(hold_out)
    assert not {*train.words} & {*heldout.words}
    assert 0.08 < len(heldout.words) / (len(train.words) + len(heldout.words)) < 0.15


def test_relatives_of_held_out_words_are_trained_on_unless_families_are_held_out():
    def related(hold_out):
        train, heldout = load_ratings(hold_out)
        families = {word[:FAMILY_LETTERS] for word in train.words}
        return np.mean([word[:FAMILY_LETTERS] in families for word in heldout.words])

    assert related("words") > 0.8 and related("families") == 0


def test_what_is_shared_cannot_be_written_to():
    assert load_ratings() is load_ratings()
    with pytest.raises(ValueError, match="read-only"):
        load_ratings().train.ratings[0, 0] = 3


# Pairs


def test_a_pair_is_one_rating_of_each_word_and_the_higher_is_chosen():
    ratings = load_ratings().heldout
    pairs, of = draw_pairs(ratings, 500, seed=1), dict(zip(ratings.words, ratings.ratings, strict=True))
    for chosen, rejected, high, low in zip(*pairs, strict=True):
        assert chosen != rejected and high > low and high in of[chosen] and low in of[rejected]


def test_how_often_each_word_wins_is_what_its_ratings_say():
    """All ratings of all pairs, counted, beside 20,000 draws."""
    wins = {}
    for i, j in itertools.permutations(range(3), 2):
        wins[i, j] = np.mean([a > b for a in THREE.ratings[i] for b in THREE.ratings[j]])
    pairs = draw_pairs(THREE, 20_000)
    for (i, j), share in wins.items():
        drawn = np.mean([(c, r) == (THREE.words[i], THREE.words[j]) for c, r in zip(*pairs[:2], strict=True)])
        assert drawn == pytest.approx(share / sum(wins.values()), abs=0.01)


def test_people_disagree():
    """One pair of six has the less liked word chosen: a policy that is never wrong about people has memorised."""
    ratings = load_ratings().train
    mean = dict(zip(ratings.words, ratings.ratings.mean(axis=1), strict=True))
    pairs = draw_pairs(ratings, 10_000)
    assert 0.08 < np.mean([mean[c] < mean[r] for c, r in zip(*pairs[:2], strict=True)]) < 0.14


def test_the_same_seed_draws_the_same_pairs():
    ratings = load_ratings().train
    assert draw_pairs(ratings, 50, seed=3).chosen == draw_pairs(ratings, 50, seed=3).chosen
    assert draw_pairs(ratings, 50, seed=3).chosen != draw_pairs(ratings, 50, seed=4).chosen


@pytest.mark.slow
def test_pairs_come_as_the_trainer_takes_them():
    pairs = draw_pairs(load_ratings().train, 16)
    batch = pairs.batch()
    assert {name: array.shape for name, array in batch.items()} == {
        "observations": (16, 1),
        "chosen": (16, 13),
        "rejected": (16, 13),
        "chosen_lengths": (16,),
        "rejected_lengths": (16,),
    }
    assert tuple(rating_vocabulary().decode(batch["rejected"])) == pairs.rejected
    policy = pretrained_words("lexicon")
    optimizer = nnx.Optimizer(policy, optax.adam(1e-3), wrt=nnx.Param)
    trainer = DPOTrainer(policy, optimizer, DPOConfig(), reference_model=nnx.clone(policy))
    assert trainer.train_step(batch)["loss"] == pytest.approx(np.log(2), abs=1e-4)  # policy and reference are one


# Agreement


def test_agreement_is_a_count_over_all_pairs_of_ratings():
    """By enumeration, for three words and four raters."""
    scores, right, total, best = [0.3, 0.9, -1.0], 0, 0, 0
    for i, j in itertools.combinations(range(3), 2):
        outcomes = [np.sign(int(a) - int(b)) for a in THREE.ratings[i] for b in THREE.ratings[j]]
        right += outcomes.count(np.sign(scores[i] - scores[j]))
        best += max(outcomes.count(1), outcomes.count(-1))
        total += len(outcomes) - outcomes.count(0)
    assert compute_agreement(scores, THREE) == pytest.approx(right / total)
    assert compute_agreement_ceiling(THREE) == pytest.approx(best / total)


def test_agreement_on_drawn_pairs_approaches_the_exact_one():
    ratings = load_ratings().heldout
    scores = dict(zip(ratings.words, np.random.default_rng(0).normal(ratings.ratings.mean(axis=1), 2), strict=True))
    pairs = draw_pairs(ratings, 10_000)
    drawn = np.mean([scores[c] > scores[r] for c, r in zip(*pairs[:2], strict=True)])
    assert drawn == pytest.approx(compute_agreement([*scores.values()], ratings), abs=0.02)


def test_the_ceiling_is_88_of_100_and_the_mean_rating_is_close_to_it():
    for part in load_ratings():
        ceiling, mean = compute_agreement_ceiling(part), compute_agreement(part.ratings.mean(axis=1), part)
        assert 0.88 < ceiling < 0.89
        assert ceiling - 0.005 < mean <= ceiling
        assert compute_agreement(-part.ratings.mean(axis=1), part) == pytest.approx(1 - mean, abs=0.005)
        assert compute_agreement(np.zeros(len(part.words)), part) == pytest.approx(0.5)


# The pretrained policy


@pytest.fixture(scope="module")
def lexicon() -> set[str]:
    return {word for part in load_ratings() for word in part.words}


def write(policy) -> list[str]:
    prompts = rating_vocabulary().prompt(["word"] * 1024)
    return rating_vocabulary().decode(jax.jit(policy.sample)(prompts, jax.random.key(0))[0])


def test_the_policy_writes_words_of_the_lexicon(lexicon):
    samples = write(pretrained_words("lexicon"))
    assert 0.6 < np.mean([word in lexicon for word in samples]) < 0.85
    assert len({*samples}) > 850


def test_log_probabilities_of_words_are_those_of_one_reading_whatever_the_batches():
    words, policy = load_ratings().heldout.words[:11], pretrained_words("lexicon")
    tokens, lengths = rating_vocabulary().encode(words, 13)
    mask = np.arange(13) < lengths[:, None]
    whole = policy.evaluate(rating_vocabulary().prompt(["word"] * 11), tokens, mask).log_probs.sum(axis=1)
    np.testing.assert_allclose(compute_word_log_probs(policy, words, batch_size=4), whole, rtol=1e-5)
    assert compute_word_log_probs(policy, [], batch_size=4).shape == (0,)


@pytest.mark.slow
def test_the_script_makes_such_a_policy(lexicon):
    assert np.mean([word in lexicon for word in write(fit_words("lexicon", 1000))]) > 0.15


@pytest.mark.slow
def test_dpo_learns_from_people_what_holds_for_words_that_it_was_not_trained_on():
    """And the words get lost on the way: the price of a weak pull to the reference."""
    train, heldout = load_ratings()
    policy = pretrained_words("lexicon")
    before = dict(zip(train.words, compute_word_log_probs(policy, train.words), strict=True))
    reference = compute_word_log_probs(policy, heldout.words)
    optimizer = nnx.Optimizer(policy, optax.adam(2e-3), wrt=nnx.Param)
    pairs = draw_pairs(train, 20_000)
    batch = pairs.batch()
    for side in ("chosen", "rejected"):
        batch[f"ref_{side}_log_probs"] = np.array([before[word] for word in getattr(pairs, side)])
    DPOTrainer(policy, optimizer, DPOConfig(beta=0.1)).fit(batch, 250, batch_size=128)
    rewards = compute_word_log_probs(policy, heldout.words) - reference
    assert 0.72 < compute_agreement(rewards, heldout) < compute_agreement_ceiling(heldout)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: load_ratings("letters"), "hold_out: got 'letters', needs 'words' or 'families'"),
        (lambda: draw_pairs(THREE, 0), "got 3 words, num_pairs=0; needs at least 2 words"),
        (lambda: draw_pairs(Ratings(("a",), THREE.ratings[:1]), 5), "got 1 words"),
        (lambda: draw_pairs(Ratings(("a", "b"), np.ones((2, 3), np.int8)), 5), "not rated alike"),
        (lambda: compute_agreement([1, 2], THREE), r"scores: got shape \(2,\), needs \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
