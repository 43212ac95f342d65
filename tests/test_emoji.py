"""Colour emoji, their encoder and its reward: what is known, what is not, and how it was made."""

import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl.data import emoji
from artifex_rl.models.dual_encoder import DualEncoder, compute_contrastive_loss


@pytest.fixture(scope="module")
def cosines():
    """Of every name and every picture."""
    pictures, names, _ = emoji.load_emoji()
    encoder = emoji.load_emoji_encoder()
    both = encoder.embed_words(emoji.count_words(names)), encoder.embed_images(pictures)
    texts, images = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in both)
    return np.asarray(texts @ images.T)


# Pictures and names


def test_pictures_are_small_colourful_and_named_by_unicode():
    pictures, names, heldout = emoji.load_emoji()
    count = len(names)
    assert count > 1200 and len({*names}) == count
    assert pictures.shape == (count, 20, 20, 3) and pictures.dtype == np.float32
    assert pictures.min() >= 0 and pictures.max() <= 1 and (pictures[:, 0, 0].mean() > 0.95)
    assert all(unicodedata.lookup(name) for name in names)
    assert 0.1 < heldout.mean() < 0.2
    assert len({picture.tobytes() for picture in pictures}) > 0.97 * count


def test_they_show_what_they_are_called():
    """Colours of what everybody knows."""
    pictures, names, _ = emoji.load_emoji()
    ink = {
        name: (1 - pictures[names.index(name)]).mean(axis=(0, 1))
        for name in ("heavy black heart", "green heart", "blue heart")
    }
    assert ink["heavy black heart"].argmin() == 0, "the red one absorbs the least red"
    assert ink["green heart"].argmin() == 1 and ink["blue heart"].argmin() == 2


def test_the_pictures_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        emoji.load_emoji().images[0] = 0


def test_a_name_is_a_bag_of_known_words():
    words = emoji.emoji_words()
    assert emoji.split_name("Smiling Face with Heart-Shaped Eyes") == [
        "smiling",
        "face",
        "with",
        "heart",
        "shaped",
        "eyes",
    ]
    counts = emoji.count_words(["dog face face", "qwertz"])
    assert counts[0, words.index("face")] == 2 and counts[0].sum() == 3 and counts[1].sum() == 0


def test_the_attribution_names_work_source_and_licence():
    assert all(part in emoji.ATTRIBUTION for part in ("OpenMoji", "openmoji.org", "CC BY-SA 4.0"))


# The encoder: a closed vocabulary


def test_what_was_trained_on_is_found(cosines):
    trained = np.flatnonzero(~emoji.load_emoji().heldout)
    own = np.arange(len(trained))
    assert emoji.compute_recall(cosines[np.ix_(trained, trained)], own, 1) > 0.9


def test_what_was_held_out_is_found_far_better_than_by_chance_and_mostly_not(cosines):
    heldout = np.flatnonzero(emoji.load_emoji().heldout)
    recall = emoji.compute_recall(cosines[np.ix_(heldout, heldout)], np.arange(len(heldout)), 5)
    assert 4 * 5 / len(heldout) < recall < 0.4


def test_the_reward_is_the_cosine_of_the_towers(cosines):
    pictures, names, _ = emoji.load_emoji()
    row = names.index("dog face")
    np.testing.assert_allclose(emoji.emoji_reward("dog face")(pictures[:50]), cosines[row, :50], atol=1e-5)
    np.testing.assert_allclose(emoji.emoji_reward()(pictures[:9], names[:9]), np.diagonal(cosines)[:9], atol=1e-5)
    assert int(np.argmax(emoji.emoji_reward("DOG, face!")(pictures))) == row


def test_it_can_be_climbed():
    """Pure JAX: the gradient of the cosine leads upwards."""
    reward = emoji.emoji_reward("pizza")
    picture = jnp.asarray(emoji.load_emoji().images[:1])
    slope = jax.jit(jax.grad(lambda x: reward(x)[0]))(picture)
    assert float(reward(picture + 0.5 * slope / jnp.linalg.norm(slope))[0]) > float(reward(picture)[0]) + 0.05


def test_a_name_of_unknown_words_is_refused():
    with pytest.raises(ValueError, match="name: got 'qwertz', needs at least one of the"):
        emoji.emoji_reward("qwertz")


def test_recall_counts_and_ties_count_against():
    similarities = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.1, 0.2, 0.15]])
    assert emoji.compute_recall(similarities, [0, 1, 2], 1) == pytest.approx(1 / 3)
    assert emoji.compute_recall(similarities, [0, 1, 2], 2) == 1
    with pytest.raises(ValueError, match="k from 1 to M"):
        emoji.compute_recall(similarities, [0, 1, 2], 4)


# How it was made


def test_towers_that_say_nothing_lose_log_b_and_right_ones_nothing():
    assert float(compute_contrastive_loss(jnp.ones((8, 3)), jnp.ones((8, 3)), 10.0)) == pytest.approx(
        np.log(8), rel=1e-5
    )
    assert float(compute_contrastive_loss(jnp.eye(4), 3 * jnp.eye(4), 100.0)) < 1e-6
    wrong = compute_contrastive_loss(jnp.eye(4), jnp.roll(jnp.eye(4), 1, axis=0), 5.0)
    assert float(wrong) == pytest.approx(np.log(np.exp(5) + 3), rel=1e-4)


def test_patches_are_cut_where_they_are():
    """A change in one patch moves the features of that patch alone."""
    encoder = DualEncoder(8, 3, patch_features=2, rngs=nnx.Rngs(0))
    seen = []
    encoder.hidden = lambda x: seen.append(x.reshape(4, 2)) or jnp.zeros((1, 96))
    image = np.zeros((1, 8, 8, 3), np.float32)
    encoder.embed_images(image)
    image[0, 1, 6] = 1  # top right
    encoder.embed_images(image)
    assert (np.abs(seen[1] - seen[0]).max(axis=1) > 0).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DualEncoder(10, 3, rngs=nnx.Rngs(0)), "DualEncoder: got sizes"),
        (lambda: DualEncoder(8, 3, rngs=nnx.Rngs(0)).embed_images(np.zeros((2, 20, 20, 3))), "images: got shape"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.slow
def test_the_script_makes_such_an_encoder():
    from artifex_rl.data.make_emoji import fit_encoder

    pictures, names, heldout = emoji.load_emoji()
    encoder, trained = fit_encoder(200), np.flatnonzero(~heldout)
    both = encoder.embed_words(emoji.count_words(names)), encoder.embed_images(pictures)
    texts, images = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in both)
    assert emoji.compute_recall((texts @ images.T)[np.ix_(trained, trained)], np.arange(len(trained)), 5) > 0.5
