"""Words of four languages, their tokens, the scorer that tells them apart, and the policy that can write them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifex_rl import RewardFunction
from artifex_rl.data import LANGUAGES, Vocabulary, language_scorer, load_words, pretrained_words, word_vocabulary
from artifex_rl.data.extras import require
from artifex_rl.data.make_pretrained_words import fit_words
from artifex_rl.data.words import CRUDE, LETTERS, MAX_TOKENS, WORDS_PER_LANGUAGE
from artifex_rl.rl.scoring import score_samples

KNOWN = {"en": "the house water", "it": "della casa acqua città", "de": "nicht haus wasser über", "fi": "että talo"}


# The lists


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_real_and_frequent_ones_come_first(language):
    words = {word: part for part, words in enumerate(load_words(language)) for word in words}
    assert len(words) == sum(map(len, load_words(language))) == WORDS_PER_LANGUAGE  # none twice, none in both parts
    assert {*KNOWN[language].split()} <= words.keys()
    assert all(3 <= len(word) <= 12 and not {*word} - {*LETTERS} for word in words)
    assert not any(map(CRUDE.search, words))
    frequency = require("wordfreq").word_frequency
    frequencies = [frequency(word, language, wordlist="small") for word in load_words(language).train]
    assert frequencies == sorted(frequencies, reverse=True)


def test_a_tenth_is_held_out_and_is_so_in_every_language():
    train, heldout = ({*itertools.chain(*(load_words(language)[part] for language in LANGUAGES))} for part in (0, 1))
    assert not train & heldout
    assert 0.09 < len(heldout) / len(train | heldout) < 0.11


def test_lists_are_read_once():
    assert load_words("fi") is load_words("fi")


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match=r"language: got 'tlh', needs one of 'en', 'it', 'de', 'fi'"):
        load_words("tlh")
    with pytest.raises(ValueError, match=r"language: got 'tlh'"):
        language_scorer("tlh")


# Tokens


@given(st.lists(st.text(LETTERS, max_size=MAX_TOKENS - 1), min_size=1, max_size=5))
def test_decoding_undoes_encoding(words):
    vocabulary = word_vocabulary()
    tokens, lengths = vocabulary.encode(words, MAX_TOKENS)
    mask = np.arange(MAX_TOKENS) < lengths[:, None]
    assert vocabulary.decode(tokens) == vocabulary.decode(tokens, mask) == words
    assert tokens.shape == (len(words), MAX_TOKENS) and tokens.dtype == lengths.dtype == np.int32
    assert (tokens[np.arange(len(words)), lengths - 1] == vocabulary.eos_id).all()
    assert (tokens[mask] == vocabulary.eos_id).sum() == len(words)  # each has one end under its mask, and it is last


def test_the_mask_says_what_counts_and_without_an_end_all_does():
    vocabulary = Vocabulary("abc", ("x", "y"))
    tokens = np.array([[1, 2, 3], [3, 0, 1]])
    assert vocabulary.decode(tokens) == ["abc", "c"]
    assert vocabulary.decode(tokens, [[True, True, False], [True, True, True]]) == ["ab", "c"]


def test_prompts_are_ids_of_their_own_behind_all_that_is_written():
    vocabulary = Vocabulary("abc", ("x", "y"))
    assert (vocabulary.num_outputs, vocabulary.num_tokens) == (4, 6)
    np.testing.assert_array_equal(vocabulary.prompt(["y", "x", "x"]), [[5], [4], [4]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda v: Vocabulary("aa", ("x",)), "letters: got 'aa'"),
        (lambda v: Vocabulary("a", ()), r"prompts: got \(\)"),
        (lambda v: v.encode(["a", "abd"], 9), "words: got 'abd', needs at most 8 letters, all of 'abc'"),
        (lambda v: v.encode(["abc"], 3), "words: got 'abc', needs at most 2 letters"),
        (lambda v: v.decode([[0, 4]]), "tokens: got 0 to 4, needs ids of letters, 0 to 3"),
        (lambda v: v.decode([[-1, 2]]), "tokens: got -1 to 2"),
        (lambda v: v.decode([[0.5]]), r"tokens: got float64 of shape \(1, 1\), needs integers"),
        (lambda v: v.decode([1]), r"tokens: got int64 of shape \(1,\)"),
        (lambda v: v.decode([[1, 2]], [[True]]), r"mask: got shape \(1, 1\), needs \(1, 2\)"),
        (lambda v: v.prompt(["z"]), "prompt: got 'z', needs one of 'x', 'y'"),
    ],
)
def test_what_is_no_word_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(Vocabulary("abc", ("x", "y")))


# The scorer


@pytest.mark.slow
def test_the_scorer_tells_the_languages_apart():
    """Each language's own probability is highest on its frequent words, and right for most of them."""
    for i, language in enumerate(LANGUAGES):
        probabilities = language_scorer().probabilities(load_words(language).train[:1000])
        assert probabilities.mean(axis=0).argmax() == i
        assert (probabilities.argmax(axis=1) == i).mean() > 0.55
    np.testing.assert_allclose(language_scorer().probabilities(["wasser", "", "x"]).sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_it_is_py3langid_of_which_only_four_languages_are_left():
    langid = require("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages([*LANGUAGES])
    for word in ("informazioni", "schön", "weather", "hyvää"):
        ranked = dict(identifier.rank(word))
        np.testing.assert_allclose(language_scorer().probabilities([word])[0], [ranked[x] for x in LANGUAGES])


def test_it_knows_what_a_policy_will_find_out():
    """The reward can be had without a word: "zioni" is more Italian to it than most of Italian."""
    ending = language_scorer("it")(["zioni"])[0]
    assert ending > 0.99 > np.quantile(language_scorer("it")([*load_words("it").train]), 0.9)


def test_a_word_without_any_sign_is_a_quarter_of_each():
    np.testing.assert_allclose(language_scorer().probabilities(["", "a"]), 0.25)


def test_the_reward_is_that_of_the_prompt_or_of_the_language_asked_for():
    vocabulary, words = word_vocabulary(), ["acqua", "wasser", "water", "vettä"]
    tokens, _ = vocabulary.encode(words, MAX_TOKENS)
    of_all = language_scorer().probabilities(words)
    prompts = vocabulary.prompt(["it", "de", "en", "it"])
    np.testing.assert_array_equal(language_scorer()(tokens, prompts), of_all[[0, 1, 2, 3], [1, 2, 0, 1]])
    np.testing.assert_array_equal(language_scorer("fi")(tokens), of_all[:, 3])
    np.testing.assert_array_equal(language_scorer("fi")(words, prompts), of_all[:, 3])
    # Behind the mask may stand anything.
    mask = tokens > 0
    np.testing.assert_array_equal(language_scorer("fi")(np.where(mask, tokens, 5), mask=mask), of_all[:, 3])
    assert isinstance(language_scorer(), RewardFunction)
    assert score_samples("reward_fn", language_scorer(), jax.numpy.asarray(tokens), prompts).shape == (4,)


@pytest.mark.parametrize("conditions", [None, [[0], [0]], [[40]], [[0.5], [38]]])
def test_a_sample_without_a_prompt_has_no_reward(conditions):
    tokens, _ = word_vocabulary().encode(["acqua", "wasser"], MAX_TOKENS)
    with pytest.raises(ValueError, match=r"conditions: got .* needs prompts of word_vocabulary\(\), \(2, 1\)"):
        language_scorer()(tokens, conditions)


def test_what_was_scored_before_is_not_scored_again():
    words = [f"{a}{b}{c}onto" for a in "bcdfg" for b in LETTERS for c in LETTERS]
    seconds = []
    for _ in range(2):
        start = time.process_time()
        language_scorer().probabilities(words)
        seconds.append(time.process_time() - start)
    assert seconds[1] < seconds[0] / 3


# The pretrained policy


@pytest.fixture(scope="module")
def samples() -> list[str]:
    prompts = word_vocabulary().prompt([*LANGUAGES] * 256)
    return word_vocabulary().decode(jax.jit(pretrained_words().sample)(prompts, jax.random.key(0))[0])


@pytest.mark.slow
def test_it_writes_words_and_not_only_those_that_it_read(samples):
    known = {word for language in LANGUAGES for part in load_words(language) for word in part}
    assert 0.18 < np.mean([word in known for word in samples]) < 0.5
    assert np.mean([len(word) == MAX_TOKENS for word in samples]) < 0.03  # it ends its words
    assert len({*samples}) > 900


def test_it_writes_all_languages_whatever_the_prompt(samples):
    """So the reward of following the prompt starts at chance: 1/4."""
    probabilities = language_scorer().probabilities(samples)
    assert (np.abs(probabilities.mean(axis=0) - 0.25) < 0.08).all()
    for prompt in range(4):
        np.testing.assert_allclose(probabilities[prompt::4].mean(axis=0), probabilities.mean(axis=0), atol=0.07)


@pytest.mark.slow
def test_it_spells_held_out_words_in_less_than_three_bits_a_character():
    """A uniform guess takes log₂ 37 = 5.2 bits."""
    assert bits_per_token(pretrained_words(), "heldout") < 3.05
    assert bits_per_token(pretrained_words(), "train") < 2.5


def bits_per_token(policy, part: str) -> float:
    words = [word for language in LANGUAGES for word in getattr(load_words(language), part)]
    words = words[:: 9 if part == "train" else 1]  # about as many
    tokens, lengths = word_vocabulary().encode(words, MAX_TOKENS)
    prompts = word_vocabulary().prompt(itertools.islice(itertools.cycle(LANGUAGES), len(words)))
    mask = np.arange(MAX_TOKENS) < lengths[:, None]
    return -float(jax.jit(policy.evaluate)(prompts, tokens, mask).log_probs.sum()) / (mask.sum() * np.log(2))


def test_each_one_is_new_and_an_unknown_one_is_refused():
    first, second = pretrained_words(), pretrained_words(temperature=0.5)
    assert first.network is not second.network and second.temperature == 0.5
    with pytest.raises(ValueError, match=r"name: got 'latin', needs one of 'languages', 'lexicon'"):
        pretrained_words("latin")


@pytest.mark.slow
def test_the_script_makes_such_a_policy():
    """A twentieth of the training reaches most of the way."""
    assert bits_per_token(fit_words("languages", 600), "heldout") < 3.6


# What is not installed


def test_a_missing_package_says_the_command_that_installs_it():
    with pytest.raises(ImportError, match=r"pip install 'artifex_rl\[data\]'"):
        require("a_package_that_is_not_there.inside")
    with pytest.raises(ImportError, match=r"pip install 'artifex_rl\[envs\]'"):
        require("a_package_that_is_not_there", extra="envs")


@pytest.mark.slow
def test_so_does_everything_that_needs_one():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('wordfreq', 'py3langid', 'vaderSentiment')))\n"
        "import artifex_rl.data as data\n"
        "for call in (lambda: data.load_words('it'), data.language_scorer, data.load_ratings):\n"
        "    try: call()\n"
        "    except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count("pip install 'artifex_rl[data]'") == 3, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["wordfreq", "py3langid", "vaderSentiment"]


@pytest.mark.slow
def test_importing_the_package_imports_none_of_them():
    code = (
        "import sys, artifex_rl, artifex_rl.data; "
        "assert not {'wordfreq', 'py3langid', 'vaderSentiment', 'sklearn', 'flax.nnx'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
