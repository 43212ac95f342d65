"""Handwritten digits: the pictures, a scorer that can be jitted and fooled, a judge that learnt from others."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl import CompressibilityReward, MultiObjectiveReward, RewardFunction
from artifex_rl.data import (
    DigitReward,
    digit_judge,
    digit_scorer,
    digits,
    image_diversity,
    ink,
    load_digits,
    to_pixels,
)
from artifex_rl.rl.rewards import score_samples


def rows(images):
    return {image.tobytes() for image in np.asarray(images)}


# Pictures


def test_the_pictures_are_scikit_learns_in_minus_1_to_1():
    from sklearn.datasets import load_digits as original

    train, heldout = load_digits()
    images, labels = np.concatenate([train.images, heldout.images]), np.concatenate([train.labels, heldout.labels])
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32 and labels.dtype == np.int32
    assert images.min() == -1 and images.max() == 1 and len(np.unique(images)) == 17
    raw = original()
    there = {
        ((image / 8 - 1).astype(np.float32).tobytes(), int(label))
        for image, label in zip(raw.images, raw.target, strict=True)
    }
    assert {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)} == there


def test_a_fifth_is_held_out_with_the_same_share_of_each_digit():
    train, heldout = load_digits()
    assert len(train.labels) == 1437 and len(heldout.labels) == 360
    shares = [np.bincount(part.labels) / len(part.labels) for part in (train, heldout)]
    np.testing.assert_allclose(*shares, atol=0.005)
    assert not rows(train.images) & rows(heldout.images)


def test_the_split_is_the_same_every_time_and_cannot_be_written_to():
    first = load_digits()
    digits.load_digits.cache_clear()
    again = load_digits()
    assert first is not again and load_digits() is again
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="read-only"):
        again.train.images[0] = 0


def test_scorer_and_judge_learn_from_different_pictures_and_neither_from_those_held_out():
    train, _ = load_digits()
    for_judge, for_scorer = digits._parts()
    assert not rows(for_judge.images) & rows(for_scorer.images)
    assert rows(for_judge.images) | rows(for_scorer.images) == rows(train.images)
    assert min(np.bincount(for_scorer.labels)) >= 60 and min(np.bincount(for_judge.labels)) >= 60


def test_pixels_are_clipped_as_on_a_screen():
    np.testing.assert_allclose(to_pixels(np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 7.0])), [0, 0, 0.5, 0.75, 1, 1])
    assert np.isnan(to_pixels(jnp.array([jnp.nan]))[0]), "a broken sample stays broken"


def test_ink_of_an_empty_sheet_a_full_one_and_real_digits():
    sheets = np.stack([np.full((8, 8), -1), np.zeros((8, 8)), np.ones((8, 8)), np.full((8, 8), 9)]).astype(np.float32)
    np.testing.assert_allclose(ink(sheets), [0, 0.5, 1, 1])
    assert float(ink(load_digits().train.images).mean()) == pytest.approx(0.305, abs=5e-4)  # 4.884 of 16


@pytest.mark.slow
def test_diversity_is_the_rms_difference_of_two_images():
    images = np.random.default_rng(0).uniform(-1, 1, (7, 8, 8)).astype(np.float32)
    pairs = [((images[i] - images[j]) ** 2 / 4).mean() for i in range(7) for j in range(7) if i != j]
    assert float(image_diversity(images)) == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-5)
    assert image_diversity(np.repeat(images[:1], 5, axis=0)) < 1e-6
    train = load_digits().train
    assert float(image_diversity(train.images)) == pytest.approx(0.38, abs=0.005)
    within = [float(image_diversity(train.images[np.equal(train.labels, digit)])) for digit in range(10)]
    assert np.mean(within) == pytest.approx(0.29, abs=0.005)
    with pytest.raises(ValueError, match="got 1, needs at least two"):
        image_diversity(images[:1])


# Scorer and judge


@pytest.mark.parametrize(("make", "accuracy"), [(digit_scorer, 0.96), (digit_judge, 0.985)])
def test_held_out_digits_are_recognised(make, accuracy):
    reward, heldout = make(), load_digits().heldout
    assert (reward.classify(heldout.images) == heldout.labels).mean() >= accuracy
    scores = reward(heldout.images, heldout.labels)
    assert scores.shape == (360,) and scores.min() >= 0 and scores.max() <= 1 and scores.mean() > 0.85
    np.testing.assert_allclose(reward.probabilities(heldout.images).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("make", [digit_scorer, digit_judge])
def test_it_is_a_reward_of_one_digit_or_of_the_digit_that_was_asked_for(make):
    images = load_digits().heldout.images[:20]
    assert isinstance(make(), RewardFunction)
    table = make().probabilities(images)
    wanted = jnp.arange(20) % 10
    np.testing.assert_array_equal(score_samples("r", make(), images, wanted), table[jnp.arange(20), wanted])
    np.testing.assert_array_equal(score_samples("r", make(3), images, wanted), table[:, 3])
    np.testing.assert_array_equal(make(3)(images), table[:, 3])


@pytest.mark.parametrize("make", [digit_scorer, digit_judge])
def test_what_lies_beyond_the_screen_is_clipped(make):
    images = 3 * load_digits().heldout.images[:5]
    np.testing.assert_allclose(make().probabilities(images), make().probabilities(np.clip(images, -1, 1)))


def test_the_scorer_is_the_network_that_scikit_learn_fitted():
    """Recomputed in float64 from the weights, with NumPy."""
    images = load_digits().heldout.images
    (w1, b1), (w2, b2) = (tuple(np.asarray(x, np.float64) for x in layer) for layer in digits._fit_network())
    logits = np.maximum(images.reshape(-1, 64) @ w1 + b1, 0) @ w2 + b2
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        digit_scorer().probabilities(images), expected / expected.sum(axis=1, keepdims=True), atol=1e-4
    )


def test_the_scorer_is_pure_jax_and_its_gradient_finds_a_picture_that_fools_it_and_not_the_judge():
    """A 0 is changed a little, along the gradient, until the scorer takes it for a 7."""
    heldout = load_digits().heldout
    image = jnp.asarray(heldout.images[heldout.labels == 0][:10])
    scorer = digit_scorer(7)
    climb = jax.jit(jax.grad(lambda x: jnp.log(scorer(x)).sum()))
    for _ in range(40):
        image = jnp.clip(image + 0.05 * climb(image) / jnp.linalg.norm(climb(image)), -1, 1)
    assert scorer(image).mean() > 5 * digit_judge(7)(image).mean()


@pytest.mark.parametrize("make", [digit_scorer, digit_judge])
@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (None, "conditions: got None, needs the digit of each image"),
        (np.array([1, 2, 10]), "conditions: got classes beyond 0 … 9"),
        (np.array([1, 2]), r"conditions: got int\d+ \(2,\), needs integers \(3,\)"),
        (np.array([1.0, 2.0, 3.0]), "conditions: got float"),
    ],
)
def test_a_reward_that_does_not_know_what_is_wanted_says_so(make, conditions, message):
    with pytest.raises(ValueError, match=message):
        make()(np.zeros((3, 8, 8), np.float32), conditions)


@pytest.mark.parametrize("make", [digit_scorer, digit_judge])
def test_other_shapes_and_digits_are_refused(make):
    with pytest.raises(ValueError, match=r"samples: got shape \(3, 64\), needs \(B, 8, 8\)"):
        make(1)(np.zeros((3, 64), np.float32))
    for digit in (10, -1, 2.5, "7"):
        with pytest.raises(ValueError, match=r"digit: got .*, needs None or an integer from 0 to 9"):
            make(digit)


def test_under_jit_an_unknown_class_is_nan():
    scores = jax.jit(digit_scorer())(jnp.zeros((2, 8, 8)), jnp.array([3, 10]))
    assert np.isfinite(scores[0]) and np.isnan(scores[1])


def test_they_are_fitted_once_and_alike_every_time():
    before = [np.asarray(x) for x in jax.tree.leaves(digits._fit_network())]
    assert digits._fit_network() is digits._fit_network() and digits._fit_machine() is digits._fit_machine()
    digits._fit_network.cache_clear()
    for one, two in zip(before, jax.tree.leaves(digits._fit_network()), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_they_compose_with_the_librarys_rewards():
    images, labels = load_digits().heldout
    reward = MultiObjectiveReward(
        {"ink": ink, "digit": digit_judge()}, {"ink": 1.0, "digit": 0.0}, safety="digit", unsafe_reward=-1.0
    )
    safe = digit_judge()(images, labels) > 0.5
    np.testing.assert_allclose(reward(images, labels), np.where(safe, ink(images), -1), rtol=1e-6)
    assert (CompressibilityReward()(to_pixels(images[:5])) < 0).all()
    assert isinstance(reward.objectives["digit"], DigitReward)


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    digits.load_digits.cache_clear()
    with pytest.raises(ImportError, match=r"sklearn.*pip install 'artifex_rl\[data\]'"):
        load_digits()
