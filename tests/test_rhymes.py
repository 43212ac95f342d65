"""Rhymes by ear, rewards of words that JAX compiles, and what is counted in written words."""

import jax
import numpy as np
import pytest

from artifex_rl.data import load_words, make_rhymes, rating_vocabulary
from artifex_rl.data.pretrained import pretrained_words
from artifex_rl.data.ratings import compute_word_log_probs
from artifex_rl.data.rhymes import list_rhymed_words, load_rhymes
from artifex_rl.data.word_rewards import EndingReward, WordListReward
from artifex_rl.lab.written_words import draw_words, measure_words

VOCABULARY = rating_vocabulary()
T = 13


def encode(*words):
    return VOCABULARY.encode(words, T)[0]


# Rhymes


def test_the_ear_and_not_the_eye():
    rhymes = load_rhymes("light")
    assert {"light", "appetite", "height", "tonight", "byte", "moonlight", "indict"} <= {*rhymes}
    assert not {"favorite", "weight", "opposite", "suite", "eight", "lit", "lights"} & {*rhymes}
    assert len(rhymes) == 305 and list(rhymes) == sorted({*rhymes})


def test_a_rhyme_goes_both_ways_and_each_word_rhymes_with_itself():
    for word in list_rhymed_words():
        assert word in load_rhymes(word)
        assert all(3 <= len(rhyme) <= 12 and rhyme.isalpha() and rhyme.islower() for rhyme in load_rhymes(word))
    assert not {*load_rhymes("light")} & {*load_rhymes("time")}


def test_a_dozen_frequent_words_rhyme_with_each():
    frequent = {word for part in load_words("en") for word in part}
    assert min(len(frequent & {*load_rhymes(word)}) for word in list_rhymed_words()) >= 12


def test_the_copyright_notice_travels_with_the_words():
    text = make_rhymes.Path(make_rhymes.__file__).with_name("rhymes.txt").read_text("utf-8")
    assert "Copyright (C) 1993-2015 Carnegie Mellon University" in text
    assert "must retain the above copyright" in " ".join(text.split()) and "AS IS" in text


def test_words_sound_alike_from_their_last_stress_on():
    lines = [
        "light L AY1 T",
        "appetite AE1 P AH0 T AY2 T",
        "favorite F EY1 V ER0 IH0 T # a comment",
        "time T AY1 M",
        "rhyme R AY1 M",
        "sound S AW1 N D",
        "wound W AW1 N D",
        "wound(2) W UW1 N D",
        "rain R EY1 N",
        "star S T AA1 R",
        "day D EY1",
        "more M AO1 R",
        "the DH AH0",
    ]
    found = make_rhymes.find_rhymes(lines)
    assert found["light"] == ("appetite", "light") and found["time"] == ("rhyme", "time")
    assert found["sound"] == ("sound", "wound"), "of several pronunciations one is enough"
    text = make_rhymes.write_rhymes(found, "A licence,\nin two lines.")
    assert "# A licence,\n# in two lines.\n" in text and "time: rhyme time\n" in text


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="word: got 'orange', needs one of 'light'"):
        load_rhymes("orange")


# Rewards of words


def test_a_list_knows_its_words_and_nothing_else():
    words = [word for part in load_words("en") for word in part if word.isascii()]
    reward, rng = WordListReward(words[:2000], VOCABULARY), np.random.default_rng(0)
    strangers = ["".join(rng.choice([*"etaoinshrdlu"], rng.integers(1, 12))) for _ in range(500)]
    # what begins or ends like a word of the list
    near = [word[:-1] for word in words[:200]] + [word + "s" for word in words[:200] if len(word) < 12]
    asked = words[:2500:5] + strangers + [word for word in near if word]
    known = {*words[:2000]}
    np.testing.assert_array_equal(reward(encode(*asked)), [float(word in known) for word in asked])


def test_the_word_ends_at_its_first_end_and_a_mask_hides_what_is_behind():
    reward = WordListReward(["light"], VOCABULARY)
    tokens = encode("light", "light", "light")
    tokens[1, 7] = 5  # behind the end
    assert reward(tokens).tolist() == [1, 1, 1]
    mask = np.arange(T) < np.array([6, 6, 5])[:, None]  # the third was cut off before its end
    assert reward(tokens, mask=mask).tolist() == [1, 1, 0]
    assert EndingReward(["ight"], VOCABULARY)(tokens, mask=mask).tolist() == [1, 1, 0]


def test_a_word_without_an_end_is_none():
    tokens = np.full((1, T), 1)  # thirteen a
    assert WordListReward(["a" * 12, "aa"], VOCABULARY)(tokens)[0] == 0
    assert WordListReward(["aa"], VOCABULARY)(tokens[:, :2])[0] == 0, "two letters, and cut off before the end"
    assert EndingReward(["aa"], VOCABULARY)(tokens)[0] == 0


def test_endings_are_seen_and_sounds_are_not():
    reward = EndingReward(["ight", "ite"], VOCABULARY)
    asked = encode("light", "weight", "zzight", "favorite", "ite", "te", "height", "lights")
    assert reward(asked).tolist() == [1, 1, 1, 1, 1, 0, 1, 0]
    assert EndingReward(["aa"], VOCABULARY)(encode("a", "aa")).tolist() == [0, 1], "a letter is not seen twice"


def test_both_give_the_same_compiled():
    asked = encode("light", "weight", "night", "dright")
    for reward in (WordListReward(["light", "night", "nigh"], VOCABULARY), EndingReward(["ght"], VOCABULARY)):
        np.testing.assert_array_equal(jax.jit(reward)(asked), reward(asked))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WordListReward([], VOCABULARY), "words: got none"),
        (lambda: WordListReward(["a", ""], VOCABULARY), "words: got an empty one"),
        (lambda: WordListReward(["Ä"], VOCABULARY), "words: got 'Ä'"),
        (lambda: EndingReward([], VOCABULARY), r"endings: got \[\]"),
        (lambda: EndingReward(["a"], VOCABULARY)(np.zeros(3, int)), r"samples: got int.* of shape \(3,\)"),
        (lambda: WordListReward(["a"], VOCABULARY)(np.zeros((1, 3))), "samples: got float"),
        (lambda: WordListReward(["a"], VOCABULARY)(np.zeros((1, 3), int), mask=np.ones((1, 2))), "mask: got shape"),
    ],
)
def test_what_cannot_be_read_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# The poet


def test_the_english_policy_writes_english_and_rarely_a_rhyme():
    """Exactly, from the probability of each word: half of what it writes is on the list, one word in 450 a rhyme."""
    policy, listed = (
        pretrained_words("english"),
        {word for part in load_words("en") for word in part if word.isascii()},
    )
    probabilities = dict(zip(sorted(listed), np.exp(compute_word_log_probs(policy, sorted(listed))), strict=True))
    assert 0.4 < sum(probabilities.values()) < 0.6
    rhymes = listed & {*load_rhymes("light")}
    assert len(rhymes) == 42 and 0.001 < sum(probabilities[word] for word in rhymes) < 0.004


@pytest.mark.slow
def test_the_script_makes_such_a_policy():
    """A sixth of the training: words on the list are a hundred times as likely as by chance."""
    from artifex_rl.data.make_pretrained_words import fit_words

    words = [word for word in load_words("en").train if word.isascii()]
    assert np.exp(compute_word_log_probs(fit_words("english", 1500), words)).sum() > 0.1


# Written words in a notebook


def test_words_are_counted():
    found = measure_words(
        [["bite", "bite", "house", "xx"], ["bite", "light", "xx", "x"]], {"bite", "light"}, {"bite", "light", "house"}
    )
    assert {name: values.tolist() for name, values in found.items()} == {
        "paid": [0.5, 0.5],
        "listed": [0.75, 0.5],
        "distinct": [3, 4],
        "paid_distinct": [1, 2],
        "letters": [3.75, 3.0],
    }


def test_a_table_shows_each_word_on_its_colour():
    figure = draw_words([["a", "b"], ["c", "d"]], [[0, 1], [0.5, 0.9]], ["one", "two"], "Words")
    axes = figure.axes[0]
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "a": "white",
        "b": "black",
        "c": "white",
        "d": "black",
    }
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0, 1], [0.5, 0.9]])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: measure_words([], set(), set()), "words: got"),
        (lambda: measure_words([[1]], set(), set()), "words: got int"),
        (lambda: draw_words([["a"]], [[1, 2]], ["one"], ""), "rewards: got"),
    ],
)
def test_what_cannot_be_counted_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
