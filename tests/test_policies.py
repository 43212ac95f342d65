"""Policies: plain modules adapted, sequences that end at EOS, references that stand still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl import Categorical, DiagonalGaussian, Evaluation, Policy, SequencePolicy, as_policy
from artifex_rl.rl.policies import FrozenPolicy, ModulePolicy

OBSERVATIONS = jnp.ones((5, 4))


class Returns(nnx.Module):
    """A module whose call returns `make(hidden)`, for hidden `(B, 6)`."""

    def __init__(self, make):
        self.linear, self.make = nnx.Linear(4, 6, rngs=nnx.Rngs(0)), make

    def __call__(self, x):
        return self.make(self.linear(x))


class Causal(nnx.Module):
    """A network over tokens that looks at all tokens so far: logits `(B, L, V)`, and values if asked."""

    def __init__(self, vocabulary=5, values=False):
        rngs = nnx.Rngs(1)
        self.embed, self.head = nnx.Embed(vocabulary, 8, rngs=rngs), nnx.Linear(8, vocabulary, rngs=rngs)
        self.values = values

    def __call__(self, tokens):
        hidden = jnp.cumsum(self.embed(tokens), axis=1)
        logits = 3 * self.head(hidden)
        return (logits, hidden[..., 0]) if self.values else logits


GAUSSIAN = lambda h: DiagonalGaussian(h[:, :3], h[:, 3:])  # noqa: E731

SPOKEN = [
    (lambda h: h, Categorical, False),
    (lambda h: Categorical(h), Categorical, False),
    (GAUSSIAN, DiagonalGaussian, False),
    (lambda h: (h, h[:, 0]), Categorical, True),
    (lambda h: (h, h[:, :1]), Categorical, True),
    (lambda h: (GAUSSIAN(h), h[:, 0]), DiagonalGaussian, True),
]


@pytest.mark.parametrize(("make", "kind", "critic"), SPOKEN)
def test_a_module_that_returns_logits_or_a_distribution_with_or_without_values_is_a_policy(make, kind, critic):
    model = Returns(make)
    policy = as_policy(model)
    actions, log_probs = policy.sample(OBSERVATIONS, jax.random.key(0))
    seen = policy.evaluate(OBSERVATIONS, actions)
    assert isinstance(seen, Evaluation) and isinstance(seen.distribution, kind)
    np.testing.assert_allclose(seen.log_probs, log_probs, rtol=1e-6)
    assert seen.log_probs.shape == seen.entropy.shape == (5,)
    if critic:
        np.testing.assert_array_equal(seen.values, model.linear(OBSERVATIONS)[:, 0])
    else:
        assert seen.values is None


@pytest.mark.parametrize(
    "make", [lambda h: {"logits": h}, lambda h: None, lambda h: (h, h, h), lambda h: (h, "v"), lambda h: h > 0]
)
def test_a_module_that_returns_something_else_is_an_error_that_says_what(make):
    with pytest.raises(TypeError, match=r"Returns returned .*, needs logits, a distribution, or a pair"):
        as_policy(Returns(make)).sample(OBSERVATIONS, jax.random.key(0))


def test_values_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=r"values: the model returned shape \(5, 6\), needs \(5,\)"):
        as_policy(Returns(lambda h: (h, h))).evaluate(OBSERVATIONS, jnp.zeros(5, int))


def test_what_has_both_methods_is_a_policy_as_it_is():
    policy = SequencePolicy(Causal(), 3)
    assert as_policy(policy) is policy and isinstance(policy, Policy)
    assert isinstance(as_policy(Causal()), ModulePolicy)


def test_what_cannot_be_called_is_no_policy():
    with pytest.raises(TypeError, match="got int, needs a policy"):
        as_policy(3)


def test_masked_entries_are_0_in_value_and_gradient():
    model = Returns(lambda h: h)
    graphdef, params = nnx.split(model)
    mask = jnp.array([True, False, True, False, True])
    bad = OBSERVATIONS.at[1].set(jnp.inf)

    def total(observations):
        seen = as_policy(nnx.merge(graphdef, params)).evaluate(observations, jnp.zeros(5, int), mask)
        return seen.log_probs

    np.testing.assert_array_equal(np.asarray(total(OBSERVATIONS))[[1, 3]], 0)
    assert np.isfinite(total(bad)).all()


# Sequences


def draw(policy, prompts, seed=0):
    graphdef, state = nnx.split(policy)
    sample = jax.jit(lambda s, o, k: nnx.merge(graphdef, s).sample_masked(o, k))
    return jax.tree.map(np.asarray, sample(state, prompts, jax.random.key(seed)))


PROMPTS = jnp.array([[1, 3], [0, 2]] * 40)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_response_is_scored_at_the_temperature_that_drew_it(temperature):
    policy = SequencePolicy(Causal(), 6, eos_id=3, temperature=temperature)
    tokens, log_probs, mask = draw(policy, PROMPTS)
    seen = policy.evaluate(PROMPTS, jnp.asarray(tokens), jnp.asarray(mask))
    np.testing.assert_allclose(seen.log_probs, log_probs, rtol=1e-4, atol=1e-5)


def test_a_response_ends_with_its_first_eos_which_counts():
    tokens, log_probs, mask = draw(SequencePolicy(Causal(), 6, eos_id=3, pad_id=0), PROMPTS)
    assert {*mask.sum(axis=1)} >= {1, 2, 6}
    for row, logs, counts in zip(tokens, log_probs, mask, strict=True):
        length = counts.sum()
        assert counts[:length].all() and not counts[length:].any()
        assert 3 not in row[: length - 1]
        assert length == 6 or row[length - 1] == 3
        assert (row[length:] == 0).all() and (logs[length:] == 0).all() and (logs[:length] < 0).all()


@pytest.mark.slow
def test_the_mask_comes_from_the_length_not_from_token_ids():
    # The padding is EOS itself, and the prompt holds it: neither ends a response nor shortens its mask.
    prompts = jnp.full((60, 2), 3)
    tokens, _, mask = draw(SequencePolicy(Causal(), 5, eos_id=3, pad_id=3), prompts)
    first = np.where((tokens == 3).any(axis=1), (tokens == 3).argmax(axis=1) + 1, 5)
    np.testing.assert_array_equal(mask.sum(axis=1), first)
    assert len({*first}) > 2


def test_without_eos_every_response_is_full():
    assert draw(SequencePolicy(Causal(), 4), PROMPTS)[2].all()


@pytest.mark.slow
def test_sequences_are_drawn_with_the_probability_that_they_are_given():
    policy = SequencePolicy(Causal(vocabulary=2), 2)
    tokens, log_probs, _ = draw(policy, jnp.zeros((8000, 1), int))
    for pair in ([0, 0], [0, 1], [1, 0], [1, 1]):
        rows = (tokens == pair).all(axis=1)
        np.testing.assert_allclose(rows.mean(), np.exp(log_probs[rows][0].sum()), atol=0.02)


@pytest.mark.slow
def test_a_network_with_values_gives_them_for_each_token():
    policy = SequencePolicy(Causal(values=True), 4)
    tokens, _, mask = draw(policy, PROMPTS)
    values = policy.evaluate(PROMPTS, jnp.asarray(tokens), jnp.asarray(mask)).values
    whole = policy.network(jnp.concatenate([PROMPTS, jnp.asarray(tokens)], axis=1))[1]
    np.testing.assert_array_equal(values, whole[:, 1:5])  # V of what was seen before the token was written


@pytest.mark.parametrize(("max_length", "temperature"), [(0, 1.0), (3, 0.0), (3, -1.0), (3, float("nan"))])
def test_sequence_settings_out_of_range(max_length, temperature):
    with pytest.raises(ValueError, match="max_length"):
        SequencePolicy(Causal(), max_length, temperature=temperature)


# References


def test_a_reference_stays_what_it_was():
    model = Returns(lambda h: h)
    reference = nnx.clone(model)
    frozen = FrozenPolicy(reference, model)
    actions = jnp.zeros(5, int)
    before = frozen(OBSERVATIONS, actions).log_probs
    np.testing.assert_allclose(before, as_policy(model).evaluate(OBSERVATIONS, actions).log_probs, rtol=1e-5)
    reference.linear.kernel[...] = reference.linear.kernel[...] + 1
    model.linear.kernel[...] = model.linear.kernel[...] - 1
    np.testing.assert_array_equal(frozen(OBSERVATIONS, actions).log_probs, before)


@pytest.mark.parametrize("rows", [3, 4, 11])
def test_a_frozen_policy_scores_a_dataset_in_parts_as_in_one(rows, monkeypatch):
    reference, rng = SequencePolicy(Causal(), 3), np.random.default_rng(0)
    prompts, responses = rng.integers(0, 5, (rows, 2)), rng.integers(0, 5, (rows, 3))
    mask = rng.random((rows, 3)) < 0.7
    frozen = FrozenPolicy(reference, SequencePolicy(Causal(), 3))
    whole = frozen(prompts, responses, mask).log_probs
    monkeypatch.setattr("artifex_rl.rl.policies.ROWS", 4)
    sizes = []
    score = frozen._log_probs
    monkeypatch.setattr(frozen, "_log_probs", lambda *inputs: sizes.append(len(inputs[1])) or score(*inputs))
    np.testing.assert_allclose(frozen.log_probs(prompts, responses, mask), whole, rtol=1e-6)
    assert frozen.log_probs(prompts, responses).shape == (rows, 3)
    assert set(sizes) == {min(rows, 4)}


def test_a_reference_that_is_the_model_or_shares_its_weights_is_an_error():
    model = Returns(lambda h: h)
    sharing = Returns(lambda h: h)
    sharing.linear = model.linear
    for reference in (model, sharing):
        with pytest.raises(ValueError, match=r"reference_model: got the model that is trained itself.*nnx\.clone"):
            FrozenPolicy(reference, model)
