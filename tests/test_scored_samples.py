"""The built-in scored words and digits: what the files hold, and that the script makes them again."""

import jax
import numpy as np
import pytest

from artifex_rl.data.scored_samples import load_scored_digits, load_scored_spellings, load_scored_words


def test_the_words_are_what_the_docstring_says():
    words = load_scored_words()
    assert words.words.shape == words.p_italian.shape == words.log_frequencies.shape == (16,)
    assert words.group_words.shape == words.group_rewards.shape == (4, 16)
    assert set(words.group_rewards.ravel()) == {0.0, 1.0}
    assert ((words.p_italian >= 0) & (words.p_italian <= 1)).all() and (words.log_frequencies < 0).all()
    # The four Italian words are the four that the scorer finds most Italian.
    assert set(np.argsort(words.p_italian)[-4:]) == {4, 5, 6, 7}
    assert (words.chosen_lengths == [len(word) + 1 for word in words.chosen]).all()
    assert (words.rejected_lengths == [len(word) + 1 for word in words.rejected]).all()
    # A model of Italian prefers Italian words, and more so than a model of all four languages does.
    margin = words.chosen_log_probs - words.rejected_log_probs
    assert (margin - words.ref_chosen_log_probs + words.ref_rejected_log_probs > 0).all()


def test_the_digits_are_what_the_docstring_says():
    digits = load_scored_digits()
    assert digits.images.shape == (95, 8, 8) and digits.images.dtype == np.uint8 and digits.images.max() == 16
    assert set(digits.labels) == set(range(10))
    np.testing.assert_allclose(digits.ink, digits.images.mean(axis=(1, 2)) / 16, atol=1e-6)
    assert (digits.small < 0).all() and ((digits.legible > 0) & (digits.legible < 1)).all()
    assert np.corrcoef(digits.ink, digits.small)[0, 1] < -0.2  # ink costs bytes


def test_the_spellings_are_what_the_docstring_says():
    known = load_scored_spellings()
    assert known.words.shape == known.lengths.shape == known.listed.shape == known.rhymes.shape == (16,)
    assert known.tokens.shape == (16, 13) and known.logits.shape == (16, 13, 27)
    assert known.logits.dtype == np.float32 and (known.lengths == [len(word) + 1 for word in known.words]).all()
    assert {*known.words[known.rhymes == 1]} >= {"light", "height", "appetite"}
    assert {*known.words[(known.rhymes == 0) & (known.listed == 1)]} >= {"weight", "favorite"}
    assert "dright" in known.words[known.listed == 0]


def compare(made, stored):
    for name, array in stored._asdict().items():
        if array.dtype.kind == "U":
            assert getattr(made, name).tolist() == array.tolist(), name
        else:
            np.testing.assert_allclose(getattr(made, name), array, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_the_script_makes_the_same_words():
    pytest.importorskip("wordfreq")
    pytest.importorskip("py3langid")
    from artifex_rl.data.make_scored_samples import make_scored_words

    compare(make_scored_words(), load_scored_words())


@pytest.mark.slow
def test_the_script_makes_the_same_spellings():
    pytest.importorskip("wordfreq")
    from artifex_rl.data.make_scored_samples import make_scored_spellings

    made, stored = make_scored_spellings(), load_scored_spellings()
    np.testing.assert_allclose(made.logits, stored.logits, atol=0.05)  # stored in half precision
    compare(made._replace(logits=stored.logits), stored)


def test_digits_are_enlarged_by_linear_interpolation_and_alike_on_every_processor():
    from artifex_rl.data.make_scored_samples import enlarge

    images = load_scored_digits().images
    found = enlarge(images, 48)
    np.testing.assert_allclose(found, jax.image.resize(images.astype(float), (95, 48, 48), "linear"), atol=1e-4)
    np.testing.assert_array_equal(found * 144, np.round(found * 144))  # twelfths in either direction, and no noise


@pytest.mark.slow  # for the compiler: without its optimisations twenty steps of rounding are visible
def test_the_script_makes_the_same_digits():
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    from artifex_rl.data.make_scored_samples import make_scored_digits

    compare(make_scored_digits(), load_scored_digits())
