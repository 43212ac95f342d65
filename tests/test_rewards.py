"""Rewards: what they are worth on real digits and known numbers, how they compose, and what they refuse."""

import dataclasses
import io
import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from artifex_rl.rl.rewards import (
    ClippedReward,
    CompositeReward,
    CompressibilityReward,
    ConstantReward,
    EmbeddingReward,
    MultiObjectiveReward,
    RewardFunction,
    ScaledReward,
    SequenceReward,
    ThresholdReward,
    compute_length_penalty,
    score_samples,
)

close = np.testing.assert_allclose
equal = np.testing.assert_array_equal


def first(samples, conditions=None, **kwargs):
    """The first feature of each sample: a reward whose values a test can choose."""
    return samples[:, 0]


def second(samples, conditions=None, **kwargs):
    return samples[:, 1]


def column(samples, conditions=None, **kwargs):
    return samples[:, :1]


def text_length(samples, conditions=None, **kwargs):
    return [len(text) for text in samples]


def features(*values):
    """Samples whose first feature is what is given."""
    return jnp.asarray(values, jnp.float32)[:, None]


PAIRS = jnp.array([[0.0, 1.0], [2.0, -1.0], [-3.0, 0.5]])
MULTI = {"clip": first, "safe": second}
finite = st.floats(-100, 100, width=32)
vectors = st.lists(finite, min_size=1, max_size=6)

# Every reward of pure JAX, on samples of two features.
JITTED = {
    "constant": ConstantReward(2.0),
    "composite": CompositeReward([first, second], [0.3, 0.7]),
    "threshold": ThresholdReward(first, 0.5),
    "scaled": ScaledReward(first, 10.0),
    "clipped": ClippedReward(first, -1.0, 1.0),
    "embedding": EmbeddingReward(lambda x: x, jnp.array([1.0, 2.0])),
    "multi-objective": MultiObjectiveReward(MULTI, safety="safe"),
    "sequence": SequenceReward(first, pad_id=0),
}


# --- the protocol


@pytest.mark.parametrize("reward", [*JITTED.values(), CompressibilityReward(), first, lambda samples: samples])
def test_whatever_can_be_called_is_a_reward_function(reward):
    assert isinstance(reward, RewardFunction)
    assert not isinstance(0.5, RewardFunction)


@pytest.mark.parametrize("name", JITTED)
def test_rewards_are_the_same_jitted_and_have_one_float_for_each_sample(name):
    reward = JITTED[name]
    eager, jitted = reward(PAIRS), jax.jit(reward)(PAIRS)
    assert eager.shape == (3,) and eager.dtype == jnp.float32
    close(eager, jitted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", JITTED)
def test_no_samples_have_no_rewards(name):
    assert JITTED[name](jnp.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("name", JITTED)
def test_rewards_keep_float64_where_it_is_enabled(name):
    with jax.enable_x64(True):
        assert JITTED[name](PAIRS.astype(jnp.float64)).dtype == jnp.float64


@pytest.mark.parametrize("returned", [[1, 2, 3], (1.0, 2.0, 3.0), np.arange(1, 4), np.float64([1, 2, 3])])
def test_a_wrapped_reward_may_return_any_three_numbers(returned):
    equal(ScaledReward(lambda *_: returned, 2.0)(PAIRS), [2, 4, 6])


def test_samples_may_be_texts():
    texts = ["a", "four", ""]
    equal(ConstantReward(3.0)(texts), [3, 3, 3])
    equal(CompositeReward([text_length, ConstantReward(1.0)], [2.0, -1.0])(texts), [1, 7, -1])
    equal(SequenceReward(text_length, length_coeff=1.0)(texts, lengths=[0, 99, 0]), [1, 3, 0])


def test_a_wrapped_reward_gets_the_conditions_and_the_keyword_arguments():
    def target(samples, conditions=None, *, factor):
        return conditions * factor

    rewards = [
        CompositeReward([target]),
        ThresholdReward(target, -1e9, 7.0),
        ScaledReward(target, 1.0),
        ClippedReward(target, -9.0, 9.0),
        MultiObjectiveReward({"one": target}),
        SequenceReward(target, pad_id=0, length_coeff=0.0),
    ]
    for reward in rewards:
        expected = [7, 7, 7] if isinstance(reward, ThresholdReward) else [2, 4, 6]
        equal(reward(PAIRS, jnp.array([1.0, 2.0, 3.0]), factor=2.0), expected)


def test_rewards_are_frozen_and_replaced():
    reward = MultiObjectiveReward(MULTI, {"clip": 1.0, "safe": 0.0})
    with pytest.raises(dataclasses.FrozenInstanceError):
        reward.weights = {}
    changed = dataclasses.replace(reward, weights={"clip": 0.0, "safe": 2.0})
    equal(changed(PAIRS), 2 * PAIRS[:, 1])
    equal(reward(PAIRS), PAIRS[:, 0])


# --- a constant, and sums, thresholds, scales and clips


def test_a_constant_reward_is_1_unless_told(variant):
    equal(variant(ConstantReward())(PAIRS), [1, 1, 1])
    equal(variant(ConstantReward(value=-2.5))(PAIRS), [-2.5, -2.5, -2.5])


def test_a_composite_is_the_weighted_sum(variant):
    reward = CompositeReward(reward_fns=[first, second], weights=[0.3, 0.7])
    close(variant(reward)(PAIRS), [0.7, -0.1, -0.55], rtol=1e-6)


def test_weights_are_equal_and_sum_to_1_unless_told():
    close(CompositeReward([first, second])(PAIRS), [0.5, 0.5, -1.25])
    close(MultiObjectiveReward(MULTI)(PAIRS), [0.5, 0.5, -1.25])


def test_a_reward_equal_to_the_threshold_is_below_it(variant):
    reward = ThresholdReward(reward_fn=first, threshold=0.1)
    equal(variant(reward)(features(0.0, 0.1, np.nextafter(np.float32(0.1), np.float32(1)))), [0, 0, 1])
    reward = ThresholdReward(first, 0.5, above_value=3.0, below_value=-2.0)
    equal(variant(reward)(features(0.4, 0.5, 0.6)), [-2, -2, 3])


def test_a_clip_keeps_what_is_inside_and_may_have_one_side():
    samples = features(-5.0, -1.0, 0.3, 1.0, 5.0)
    close(ClippedReward(reward_fn=first, min_value=-1.0, max_value=1.0)(samples), [-1, -1, 0.3, 1, 1])
    close(ClippedReward(first, 0.5, np.inf)(samples), [0.5, 0.5, 0.5, 1, 5])
    close(ClippedReward(first, 0.25, 0.25)(samples), [0.25] * 5)


def test_a_scale_is_1_and_a_clip_from_minus_1_to_1_unless_told():
    samples = features(-5.0, 0.25, 5.0)
    equal(ScaledReward(first)(samples), samples[:, 0])
    equal(ClippedReward(first)(samples), [-1, 0.25, 1])


@given(vectors, finite, finite)
def test_scaling_is_linear_and_a_composite_of_scales_is_a_scale(values, a, b):
    samples = features(*values)
    close(ScaledReward(first, a)(samples), a * samples[:, 0], rtol=1e-6)
    parts = CompositeReward([ScaledReward(first, a), ScaledReward(first, b)], [1.0, 1.0])
    close(parts(samples), ScaledReward(first, a + b)(samples), rtol=1e-3, atol=1e-2)


@given(vectors, finite, finite)
def test_a_clip_is_between_its_bounds_and_clipping_again_changes_nothing(values, a, b):
    clipped = ClippedReward(first, min(a, b), max(a, b))
    rewards = clipped(features(*values))
    assert ((rewards >= min(a, b)) & (rewards <= max(a, b))).all()
    equal(ClippedReward(clipped, min(a, b), max(a, b))(features(*values)), rewards)


def test_nan_stays_nan_through_every_wrapper():
    samples = jnp.array([[np.nan, np.nan], [1.0, 1.0]])
    for name in ("composite", "threshold", "scaled", "clipped", "embedding", "multi-objective", "sequence"):
        equal(np.isnan(JITTED[name](samples)), [True, False], err_msg=name)


def test_numbers_may_be_traced_and_have_gradients(check_gradients):
    """Learnable weights: the gradient of a composite with respect to a weight is the reward it weighs."""

    def total(weights, scale, low):
        composite = CompositeReward([first, second], weights)
        return ClippedReward(ScaledReward(composite, scale), low, 100.0)(PAIRS).sum()

    gradient = jax.jit(jax.grad(total))(jnp.array([0.3, 0.7]), 10.0, -100.0)
    close(gradient, 10 * PAIRS.sum(axis=0))
    check_gradients(total, [0.3, 0.7], 10.0, -2.0)


def test_moving_a_traced_number_compiles_once():
    compilations = []

    @jax.jit
    def rewards(threshold):
        compilations.append(threshold)
        return ThresholdReward(first, threshold)(PAIRS)

    assert [int(rewards(t).sum()) for t in (-5.0, 0.0, 1.0, 2.0)] == [3, 1, 1, 0]
    assert len(compilations) == 1


# --- embeddings


@pytest.fixture(scope="module")
def digits():
    """Images of handwritten digits `(1797, 8, 8)` in [0, 1], and which digit each is."""
    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target


@pytest.fixture(scope="module")
def encode(digits):
    """Images to their first 16 principal components."""
    pca = PCA(16, random_state=0).fit(digits[0].reshape(-1, 64))
    mean, components = jnp.asarray(pca.mean_, jnp.float32), jnp.asarray(pca.components_, jnp.float32)
    return lambda images: (images.reshape(-1, 64) - mean[None]) @ components.T


def test_the_cosine_of_known_angles(variant):
    samples = jnp.array([[3.0, 0.0], [1.0, 1.0], [0.0, 5.0], [-1.0, 1.0], [-0.1, 0.0], [3.0, 4.0]])
    reward = EmbeddingReward(lambda x: x, target=[2.0, 0.0])
    close(variant(reward)(samples), [1, 0.5**0.5, 0, -(0.5**0.5), -1, 0.6], atol=1e-7)


def test_the_zero_vector_has_cosine_0_and_gradient_0(variant):
    def total(samples, target):
        return EmbeddingReward(lambda x: x, target)(samples).sum()

    value, gradient = variant(jax.value_and_grad(total))(jnp.zeros((2, 3)), jnp.ones(3))
    equal(value, 0)
    equal(gradient, np.zeros((2, 3)))
    equal(variant(total)(jnp.ones((2, 3)), jnp.zeros(3)), 0)


@given(st.lists(finite, min_size=3, max_size=3), st.lists(finite, min_size=3, max_size=3), st.integers(-30, 30))
def test_the_cosine_is_symmetric_within_1_and_blind_to_length(u, v, exponent):
    def cosine(u, v):
        return float(EmbeddingReward(lambda x: x, v)(jnp.asarray(u, jnp.float32)[None])[0])

    assert -1 <= cosine(u, v) <= 1
    close(cosine(u, v), cosine(v, u), atol=1e-6)
    if not any(0 < abs(x) < 1e-6 for x in u):  # else the smallest ones underflow
        close(cosine(np.array(u) * 10.0**exponent, v), cosine(u, v), atol=1e-5)


def test_the_gradient_of_the_cosine_is_that_of_finite_differences(check_gradients):
    def total(samples, target):
        return EmbeddingReward(lambda x: x, target)(samples).sum()

    check_gradients(total, [[1.0, -2.0, 0.5], [0.3, 0.2, 4.0]], [1.0, 1.0, -1.0])


@pytest.mark.slow
def test_digits_are_closest_to_the_centroid_of_their_own_class(digits, encode):
    images, labels = digits
    centroids = jnp.stack([encode(images[labels == k]).mean(axis=0) for k in range(10)])
    table = EmbeddingReward(encode, target=centroids)
    scores = jnp.stack([table(images, jnp.full(len(images), k)) for k in range(10)])
    assert (scores.argmax(axis=0) == labels).mean() > 0.85
    own = table(images, labels)
    assert own.mean() > 0.6 > 0.3 > table(images, (labels + 1) % 10).mean()
    close(own, scores[labels, np.arange(len(labels))], atol=1e-6)

    tower = EmbeddingReward(encode, target=lambda conditions: centroids[conditions])
    close(tower(images, labels), own, atol=1e-6)
    for target in (centroids[3], centroids[3:4]):
        close(EmbeddingReward(encode, target)(images, ["a three"] * len(images)), scores[3], atol=1e-6)


def test_under_jit_a_class_out_of_range_is_nan():
    reward = EmbeddingReward(lambda x: x, jnp.eye(2))
    rewards = jax.jit(reward)(PAIRS, jnp.array([0, 2, -1]))
    equal(np.isnan(rewards), [False, True, True])


# --- several objectives and a gate


def test_the_gate_replaces_the_reward_of_what_is_not_strictly_safe(variant):
    samples = jnp.array([[0.8, 0.9], [0.8, 0.5], [0.8, 0.1]])
    reward = MultiObjectiveReward(MULTI, {"clip": 0.4, "safe": 0.3}, safety="safe")
    close(variant(reward)(samples), [0.59, -1, -1], rtol=1e-6)
    zero = dataclasses.replace(reward, unsafe_reward=0.0, safety_threshold=0.2)
    close(variant(zero)(samples), [0.59, 0.47, 0], rtol=1e-6)
    ungated = dataclasses.replace(reward, safety=None)
    close(variant(ungated)(samples), [0.59, 0.47, 0.35], rtol=1e-6)


def test_components_are_the_scores_before_weights_and_gate_and_combine_to_the_reward():
    reward = MultiObjectiveReward(MULTI, {"safe": 0.0, "clip": 2.0}, safety="safe")
    components = reward.components(PAIRS)
    assert list(components) == ["clip", "safe"]
    equal(components["clip"], PAIRS[:, 0])
    equal(components["safe"], PAIRS[:, 1])
    equal(reward.combine(components), [0, -1, -1])
    equal(reward(PAIRS), reward.combine(components))


def test_an_unsafe_sample_is_unsafe_whatever_else_it_scores_but_an_unknown_safety_is_nan():
    samples = jnp.array([[np.nan, 0.0], [np.inf, 0.0], [1.0, np.nan]])
    equal(MultiObjectiveReward(MULTI, safety="safe")(samples), [-1, -1, np.nan])


def test_the_guides_multi_objective_reward(digits, encode):
    """The guide's class, with its cosine normalised, on digits: like a 3, not blank, and safe if it is no 8."""
    images, labels = digits
    target = encode(images[labels == 3]).mean(axis=0)

    def aesthetic(samples, conditions=None, **kwargs):
        return jax.nn.sigmoid(10 * (samples.mean(axis=(1, 2)) - 0.3))

    def safety(samples, conditions=None, **kwargs):
        return jax.nn.softmax(jnp.stack([jnp.full(len(labels), 0.5), 1.0 * (labels == 8)], axis=-1))[:, 0]

    images = jnp.asarray(images)
    clip = EmbeddingReward(encode, target)
    weights = {"clip": 0.4, "aesthetic": 0.3, "safety": 0.3}
    reward = MultiObjectiveReward({"clip": clip, "aesthetic": aesthetic, "safety": safety}, weights, safety="safety")
    embeddings = encode(images)
    cosine = (embeddings @ target) / (jnp.linalg.norm(embeddings, axis=-1) * jnp.linalg.norm(target))
    combined = 0.4 * cosine + 0.3 * aesthetic(images) + 0.3 * safety(images)
    close(reward(images), jnp.where(safety(images) > 0.5, combined, -1.0), atol=1e-6)
    assert (reward(images)[labels == 8] == -1).all()
    assert reward(images)[labels == 3].mean() > 0.3 + reward(images)[(labels != 3) & (labels != 8)].mean()


# --- sequences


def test_the_length_penalty_is_0_for_nothing_and_1_for_99_tokens(variant):
    close(variant(compute_length_penalty)(jnp.array([0, 9, 99, 9999])), [0, 0.5, 1, 2], rtol=1e-6)
    close(compute_length_penalty([1, 3, 7], reference_length=2), [1, 2, 3], rtol=1e-6)


def test_the_guides_sequence_reward(variant):
    """rewards − 0.1 · log(#tokens other than padding + 1) / log(100)"""
    tokens = jnp.array([[5, 3, 2, 0], [5, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    rewards = variant(SequenceReward(ConstantReward(1.0), pad_id=0))(tokens)
    close(rewards, 1 - 0.1 * np.log([4, 2, 1, 5]) / np.log(100), rtol=1e-6)


def test_lengths_mask_and_padding_agree_and_the_call_goes_before_the_padding(variant):
    tokens = jnp.array([[5, 3, 2, 0], [5, 0, 0, 0]])
    reward = SequenceReward(ConstantReward(0.0), pad_id=0, length_coeff=2.0)
    padding = variant(reward)(tokens)
    close(variant(lambda t, m: reward(t, mask=m))(tokens, tokens != 0), padding)
    close(variant(lambda t, n: reward(t, lengths=n))(tokens, jnp.array([3, 1])), padding)
    # With an end of sequence that is also the padding, the mask counts it and the padding does not.
    with_end = reward(tokens, mask=jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]]))
    close(with_end, -2 * np.log([5, 3]) / np.log(100), rtol=1e-6)


def test_the_wrapped_reward_sees_the_mask_and_the_lengths():
    def last_token(samples, conditions=None, *, mask=None, lengths=None):
        end = lengths if mask is None else mask.sum(axis=-1)
        return samples[jnp.arange(len(samples)), end - 1]

    reward = SequenceReward(last_token, length_coeff=0.0)
    tokens = jnp.array([[5, 3, 0], [7, 0, 0]])
    equal(reward(tokens, mask=tokens != 0), [3, 7])
    equal(reward(tokens, lengths=jnp.array([2, 1])), [3, 7])


@given(st.integers(0, 5000), st.integers(1, 500))
def test_of_two_equally_good_answers_the_shorter_is_better(length, longer):
    short, long = SequenceReward(ConstantReward(1.0))(["", ""], lengths=[length, length + longer])
    assert short > long


def test_among_texts_the_penalty_turns_the_order_of_a_reward_that_likes_length():
    texts = ["yes", "yes it is", "yes it is so it is indeed so"]
    lengths = [len(text.split()) for text in texts]
    hacked = ScaledReward(text_length, 0.0005)
    assert (np.diff(hacked(texts)) > 0).all()
    assert (np.diff(SequenceReward(hacked)(texts, lengths=lengths)) < 0).all()


# --- compressibility


def enlarge(images, by=8):
    return np.kron(images, np.ones((1, by, by))).astype(np.float32)


@pytest.mark.parametrize("quality", [50, 95])
def test_a_blank_image_is_smaller_than_a_digit_and_a_digit_than_noise(digits, quality):
    digit = enlarge(digits[0][:20])
    noise = np.random.default_rng(0).random(digit.shape, np.float32)
    reward = CompressibilityReward(quality=quality)
    blank = reward(np.zeros((1, 64, 64), np.float32))
    assert blank.min() > reward(digit).max() > reward(digit).min() > reward(noise).max()


def test_every_digit_takes_more_than_none_even_at_8_by_8_pixels(digits):
    reward = CompressibilityReward()
    assert reward(digits[0]).max() < reward(np.zeros((1, 8, 8)))[0]


def test_the_reward_is_minus_the_bytes_of_pillows_jpeg_over_1000(digits):
    from PIL import Image

    images = np.round(enlarge(digits[0][:5]) * 255).astype(np.uint8)

    def size(image, quality):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return len(file.getvalue()) / 1000

    close(CompressibilityReward()(images), [-size(image, 95) for image in images], rtol=1e-6)
    close(CompressibilityReward(quality=10)(images), [-size(image, 10) for image in images], rtol=1e-6)
    colour = np.stack([images, images[:, ::-1], 255 - images], axis=-1)
    close(CompressibilityReward()(colour), [-size(image, 95) for image in colour], rtol=1e-6)
    equal(CompressibilityReward(incompressible=True)(images), -CompressibilityReward()(images))


def test_floats_bytes_channels_and_kinds_of_array_are_the_same_images(digits):
    reward, images = CompressibilityReward(), enlarge(digits[0][:4])
    rewards = reward(images)
    assert rewards.shape == (4,) and rewards.dtype == jnp.float32
    integers = np.round(images * 255).astype(np.uint8)
    for same in (integers, images[..., None], jnp.asarray(images), jnp.asarray(integers), list(images)):
        equal(reward(same), rewards)
    equal(reward(jnp.asarray(integers / 255, jnp.float16)), rewards)
    assert reward(np.zeros((0, 8, 8))).shape == (0,)


def test_a_learner_of_compressibility_goes_blank_and_of_its_opposite_goes_noisy(digits):
    """Of images that fade from a digit to its mean grey, each reward prefers its own end."""
    digit = enlarge(digits[0][:1])
    faded = np.concatenate([digit * (1 - t) + digit.mean() * t for t in np.linspace(0, 1, 5)])
    assert (np.diff(CompressibilityReward()(faded)) > 0).all()
    assert (np.diff(CompressibilityReward(incompressible=True)(faded)) < 0).all()


def test_without_pillow_the_constructor_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        CompressibilityReward()


def test_under_jit_it_says_that_it_cannot():
    with pytest.raises(TypeError, match=r"outside of jit"):
        jax.jit(CompressibilityReward())(jnp.zeros((2, 8, 8)))


@pytest.mark.slow
def test_importing_rewards_imports_neither_pillow_nor_sklearn():
    script = "import sys, artifex_rl.rl.rewards; print([name for name in ('PIL', 'sklearn') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


# --- errors

identity = EmbeddingReward(lambda x: x, jnp.ones(2))
CONSTRUCTORS = [
    (lambda: ConstantReward("high"), "value: got str"),
    (lambda: ConstantReward(np.nan), "value: got nan, needs a finite number"),
    (lambda: ConstantReward(1e300), "value: got 1e.300, needs a finite number"),
    (lambda: ConstantReward([1.0, 2.0]), r"value: got shape \(2,\), needs \(\)"),
    (lambda: ConstantReward(None), "value: got None"),
    (lambda: CompositeReward([]), "reward_fns: got none"),
    (lambda: CompositeReward(first), "reward_fns: got <function first.*needs a sequence"),
    (lambda: CompositeReward([first, 0.5]), r"reward_fns\[1\]: got float, needs a callable"),
    (lambda: CompositeReward([first, ConstantReward]), r"reward_fns\[1\]: got the class ConstantReward"),
    (lambda: CompositeReward({"a": first}), r"reward_fns\[0\]: got str"),
    (lambda: CompositeReward([first], [0.5, 0.5]), "weights: got 2, needs 1"),
    (lambda: CompositeReward([first, second], []), "weights: got 0, needs 2"),
    (lambda: CompositeReward([first], 0.5), "weights: got 0.5, needs a sequence"),
    (lambda: CompositeReward([first], jnp.array(0.5)), "weights: got .*needs a sequence"),
    (lambda: CompositeReward([first, second], [0.5, np.inf]), r"weights\[1\]: got inf, needs a finite"),
    (lambda: CompositeReward([first], ["1"]), r"weights\[0\]: got str"),
    (lambda: ThresholdReward(None, 0.5), "reward_fn: got NoneType, needs a callable"),
    (lambda: ThresholdReward(first, np.nan), "threshold: got nan"),
    (lambda: ThresholdReward(first, 0.5, above_value=np.inf), "above_value: got inf"),
    (lambda: ThresholdReward(first, 0.5, below_value=-np.inf), "below_value: got -inf"),
    (lambda: ScaledReward(0.5, first), "reward_fn: got float"),
    (lambda: ScaledReward(first, np.inf), "scale: got inf"),
    (lambda: ClippedReward("first"), "reward_fn: got str"),
    (lambda: ClippedReward(first, 1.0, -1.0), "min_value: got 1.0, needs at most max_value, which is -1.0"),
    (lambda: ClippedReward(first, np.nan, 1.0), "min_value: got nan, needs a number"),
    (lambda: ClippedReward(first, 0.0, np.nan), "max_value: got nan, needs a number"),
    (lambda: EmbeddingReward(jnp.ones(2), jnp.ones(2)), "encoder: got .*needs a callable"),
    (lambda: EmbeddingReward(first, ConstantReward), "target: got the class"),
    (lambda: EmbeddingReward(first, "a cat"), "target: got str"),
    (lambda: EmbeddingReward(first, 1.0), r"target: got shape \(\), needs \(D,\)"),
    (lambda: EmbeddingReward(first, jnp.ones((1, 2, 3))), r"target: got shape \(1, 2, 3\)"),
    (lambda: EmbeddingReward(first, jnp.ones((2, 0))), r"target: got shape \(2, 0\)"),
    (lambda: EmbeddingReward(first, [1.0, np.nan]), "target: got NaN"),
    (lambda: MultiObjectiveReward({}), "objectives: got {}"),
    (lambda: MultiObjectiveReward([first]), "objectives: got .*needs a mapping"),
    (lambda: MultiObjectiveReward({0: first}), "objectives: got the name 0"),
    (lambda: MultiObjectiveReward({"clip": 1.0}), r"objectives\['clip'\]: got float"),
    (lambda: MultiObjectiveReward(MULTI, {"clip": 1.0}), r"weights: got \['clip'\], needs .*\['clip', 'safe'\]"),
    (lambda: MultiObjectiveReward(MULTI, {"clip": 1.0, "safe": 1.0, "x": 1.0}), "weights: got .*'x'"),
    (lambda: MultiObjectiveReward(MULTI, [0.5, 0.5]), "weights: got list, needs a mapping"),
    (lambda: MultiObjectiveReward(MULTI, {"clip": 1.0, "safe": np.nan}), r"weights\['safe'\]: got nan"),
    (lambda: MultiObjectiveReward(MULTI, safety="safety"), "safety: got 'safety', needs None or .*'clip', 'safe'"),
    (lambda: MultiObjectiveReward(MULTI, safety_threshold=np.inf), "safety_threshold: got inf"),
    (lambda: MultiObjectiveReward(MULTI, unsafe_reward=-np.inf), "unsafe_reward: got -inf"),
    (lambda: SequenceReward(3), "reward_fn: got int"),
    (lambda: SequenceReward(first, pad_id=0.5), "pad_id: got 0.5"),
    (lambda: SequenceReward(first, pad_id=True), "pad_id: got True"),
    (lambda: SequenceReward(first, length_coeff=np.nan), "length_coeff: got nan"),
    (lambda: SequenceReward(first, reference_length=1), "reference_length: got 1, needs a number above 1"),
    (lambda: compute_length_penalty([1, 2], reference_length=0.5), "reference_length: got 0.5"),
    (lambda: compute_length_penalty([1, -1]), "lengths: got a negative"),
    (lambda: compute_length_penalty([1, np.inf]), "lengths: got a negative or non-finite"),
    (lambda: CompressibilityReward("yes"), "incompressible: got 'yes'"),
    (lambda: CompressibilityReward(95), "incompressible: got 95"),
    (lambda: CompressibilityReward(quality=0), "quality: got 0, needs an integer from 1 to 100"),
    (lambda: CompressibilityReward(quality=101), "quality: got 101"),
    (lambda: CompressibilityReward(quality=True), "quality: got True"),
    (lambda: CompressibilityReward(quality=9.5), "quality: got 9.5"),
]  # fmt: skip

NESTED = CompositeReward([first, ClippedReward(column, 0.0, 1.0)])
TOKENS = jnp.ones((3, 4), int)
IMAGES = np.zeros((2, 8, 8), np.float32)
jpeg, sequence, padded = CompressibilityReward(), SequenceReward(ConstantReward()), SequenceReward(first, pad_id=0)
per_class, tower = EmbeddingReward(lambda x: x, jnp.eye(2)), EmbeddingReward(lambda x: x, lambda c: c)
multi = MultiObjectiveReward(MULTI)
CALLS = [
    (lambda: ConstantReward()("one text"), "samples: got str, needs an array"),
    (lambda: ConstantReward()({"x": PAIRS}), "samples: got dict"),
    (lambda: ConstantReward()(3), "samples: got int"),
    (lambda: ConstantReward()(jnp.float32(3)), r"samples: got shape \(\)"),
    (lambda: ScaledReward(column, 2.0)(PAIRS), r"reward_fn \(column\): got shape \(3, 1\), needs \(3,\)"),
    (lambda: ThresholdReward(lambda *_: 1.0, 2.0)(PAIRS), r"reward_fn \(<lambda>\): got shape \(\), needs \(3,\)"),
    (lambda: ClippedReward(lambda *_: None)(PAIRS), r"reward_fn \(<lambda>\): got None"),
    (lambda: ClippedReward(lambda *_: ["one", "two", "six"])(PAIRS), r"<lambda>\): got list, needs an array"),
    (lambda: CompositeReward([first, column])(PAIRS), r"reward_fns\[1\] \(column\): got shape \(3, 1\)"),
    (lambda: NESTED(PAIRS), r"reward_fn \(column\): got shape \(3, 1\), needs \(3,\)"),
    (lambda: MultiObjectiveReward({"clip": column})(PAIRS), r"objectives\['clip'\] \(column\): got shape \(3, 1\)"),
    (lambda: multi.combine({"clip": PAIRS[:, 0]}), r"components: got \['clip'\], needs"),
    (lambda: multi.combine({"clip": PAIRS[:, 0], "safe": PAIRS}), r"components\['safe'\]: got shape"),
    (lambda: score_samples("bonus", column, PAIRS), r"bonus \(column\): got shape \(3, 1\)"),
    (lambda: identity(jnp.ones((3, 4))), r"target: got shape \(2,\), needs D = 4"),
    (lambda: EmbeddingReward(first, jnp.ones(2))(PAIRS), r"encoder: got shape \(3,\), needs \(B, D\) with B = 3"),
    (lambda: EmbeddingReward(lambda x: x[1:], jnp.ones(2))(PAIRS), r"encoder: got shape \(2, 2\)"),
    (lambda: tower(PAIRS), "conditions: got None, needs what"),
    (lambda: tower(PAIRS, PAIRS[:1]), r"target\(conditions\): got shape \(1, 2\)"),
    (lambda: per_class(PAIRS), "conditions: got None, needs the class"),
    (lambda: per_class(PAIRS, jnp.arange(2)), r"conditions: got shape \(2,\), needs \(3,\)"),
    (lambda: per_class(PAIRS, jnp.arange(3)), "conditions: got .*from 0 to 1"),
    (lambda: per_class(PAIRS, -jnp.arange(3)), "conditions: got .*from 0 to 1"),
    (lambda: per_class(PAIRS, [0, 0.5, 1]), "conditions: got .*class indices"),
    (lambda: sequence(TOKENS), "lengths: got None, needs lengths or mask in the call, or pad_id"),
    (lambda: sequence(TOKENS, lengths=[1, 2, 3], mask=TOKENS), "lengths: given beside mask"),
    (lambda: sequence(TOKENS, lengths=[1, 2]), r"lengths: got shape \(2,\), needs \(3,\)"),
    (lambda: sequence(TOKENS, lengths=[1, 2, -1]), "lengths: got a negative"),
    (lambda: sequence(TOKENS, mask=jnp.ones(3)), r"mask: got shape \(3,\), needs \(B, T\) with B = 3"),
    (lambda: sequence(TOKENS, mask=TOKENS.T), r"mask: got shape \(4, 3\), needs"),
    (lambda: padded(jnp.ones(3, int)), r"samples: got shape \(3,\), needs token ids"),
    (lambda: padded(["one", "two"]), "samples: got list, needs an array of numbers"),
    (lambda: jpeg(IMAGES - 1e-3), "samples: got floats from -0.001 to 1, needs .0, 1."),
    (lambda: jpeg(IMAGES + 255), "samples: got floats from 0 to 255"),
    (lambda: jpeg(IMAGES + np.nan), "samples: got floats from nan"),
    (lambda: jpeg(IMAGES.astype(int)), "samples: got int64, needs floats in .0, 1. or uint8"),
    (lambda: jpeg(IMAGES.astype(bool)), "samples: got bool"),
    (lambda: jpeg(IMAGES[0]), r"samples: got shape \(8, 8\), needs \(B, H, W\)"),
    (lambda: jpeg(np.zeros((2, 8, 8, 4))), r"samples: got shape \(2, 8, 8, 4\), needs"),
    (lambda: jpeg(np.zeros((2, 3, 8, 8))), r"got shape \(2, 3, 8, 8\).*look like \(B, C, H, W\)"),
    (lambda: jpeg(np.zeros((2, 0, 8))), r"samples: got shape \(2, 0, 8\)"),
    (lambda: jpeg([IMAGES[0], IMAGES[0, :4]]), "samples: got images of several shapes"),
    (lambda: jpeg(["a", "b"]), r"samples: got shape \(2,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), CONSTRUCTORS, ids=[message for _, message in CONSTRUCTORS])
def test_a_bad_argument_is_an_error_when_the_reward_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_a_bad_call_is_an_error_that_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_exception_in_a_wrapped_reward_comes_with_the_path_to_it():
    def broken(samples, conditions=None, **kwargs):
        raise RuntimeError("no server")

    with pytest.raises(RuntimeError, match="no server") as caught:
        CompositeReward([first, ScaledReward(broken, 2.0)])(PAIRS)
    assert caught.value.__notes__ == ["raised by reward_fn (broken)", "raised by reward_fns[1] (ScaledReward)"]


def test_wrong_shapes_are_errors_under_jit_too():
    with pytest.raises(ValueError, match=r"reward_fn \(column\): got shape \(3, 1\), needs \(3,\)"):
        jax.jit(ScaledReward(column, 2.0))(PAIRS)
