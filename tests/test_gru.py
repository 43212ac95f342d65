"""The GRU: the equations of its docstring, no look into the future, and a step at a time for the whole."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl import SequencePolicy
from artifex_rl.models import GRU

TOKENS = np.random.default_rng(0).integers(0, 9, size=(5, 7)).astype(np.int32)


@pytest.fixture(scope="module")
def network() -> GRU:
    network = GRU(9, 16, 6, embed_features=4, rngs=nnx.Rngs(0))
    for i, layer in enumerate((network.inputs, network.recurrent, network.outputs)):  # zero biases would hide theirs
        layer.bias[...] = 0.3 * jax.random.normal(jax.random.key(i), layer.bias.shape)
    return network


class Rereads(nnx.Module):
    """The same network without its steps: a policy must read the whole sequence for each token."""

    def __init__(self, network: GRU):
        self.network = network

    def __call__(self, tokens):
        return self.network(tokens)


def test_it_computes_the_equations_of_its_docstring(network):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    layers = (network.inputs, network.recurrent, network.outputs)
    (w, b), (u, c), (v, d) = ((np.float64(layer.kernel[...]), np.float64(layer.bias[...])) for layer in layers)
    embedded = np.float64(network.embed.embedding[...])
    h = np.zeros((5, 16))
    for t in range(TOKENS.shape[1]):
        x = embedded[TOKENS[:, t]] @ w + b
        y = h @ u + c
        r, z = sigmoid(x[:, :16] + y[:, :16]), sigmoid(x[:, 16:32] + y[:, 16:32])
        h = (1 - z) * np.tanh(x[:, 32:] + r * y[:, 32:]) + z * h
        np.testing.assert_allclose(network(TOKENS)[:, t], h @ v + d, atol=1e-5)


def test_steps_give_the_logits_of_the_whole(network):
    whole, carry = network(TOKENS), network.init_carry(5)
    for t in range(TOKENS.shape[1]):
        carry, logits = network.step(carry, TOKENS[:, t])
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)
    assert whole.shape == (5, 7, 6)


def test_logits_know_the_past_and_not_the_future(network):
    changed = TOKENS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 9
    before, after = network(TOKENS), network(changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=(0, 2)) > 1e-4).all()


@pytest.mark.parametrize("prompt_length", [1, 3])
def test_a_policy_writes_the_same_with_steps_as_with_rereading(network, prompt_length):
    """Same key, same tokens; and the log-probabilities are those of scoring the response afterwards."""
    prompts = TOKENS[:, :prompt_length]
    steps = SequencePolicy(network, 10, eos_id=0, pad_id=7, temperature=0.8)
    rereads = SequencePolicy(Rereads(network), 10, eos_id=0, pad_id=7, temperature=0.8)
    tokens, log_probs, mask = steps.sample_masked(prompts, jax.random.key(3))
    for got, wanted in zip((tokens, log_probs, mask), rereads.sample_masked(prompts, jax.random.key(3)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert mask.any() and not mask.all()  # some responses ended early
    np.testing.assert_allclose(log_probs, steps.evaluate(prompts, tokens, mask).log_probs, atol=1e-5)


@pytest.mark.slow
def test_a_policy_never_reads_the_whole_to_write():
    class OnlySteps(GRU):
        def __call__(self, tokens):
            raise AssertionError("read the whole sequence")

    policy = SequencePolicy(OnlySteps(9, 4, rngs=nnx.Rngs(0)), 5)
    assert policy.sample(TOKENS, jax.random.key(0))[0].shape == (5, 5)
    with pytest.raises(AssertionError, match="whole"):
        policy.evaluate(TOKENS, TOKENS)


def test_a_network_that_steps_may_return_values_beside_its_logits(network):
    class WithValues(GRU):
        def step(self, carry, tokens):
            carry, logits = super().step(carry, tokens)
            return carry, (logits, jnp.zeros(len(tokens)))

    twin = WithValues(9, 16, 6, embed_features=4, rngs=nnx.Rngs(1))
    nnx.update(twin, nnx.state(network))
    mine, theirs = (SequencePolicy(n, 4).sample(TOKENS, jax.random.key(0)) for n in (network, twin))
    np.testing.assert_array_equal(mine[0], theirs[0])


def test_what_is_only_read_is_never_written(network):
    """Tokens 6, 7, 8 are prompts: the network reads them and has no logits for them."""
    policy = SequencePolicy(network, 50)
    assert np.max(policy.sample(np.full((20, 1), 8), jax.random.key(0))[0]) == 5


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (4, 4, 5), (4, 4, 0), (4, 4, 4, 0)])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ValueError, match=r"GRU: got sizes .* needs at least 1"):
        GRU(*sizes, rngs=nnx.Rngs(0))
