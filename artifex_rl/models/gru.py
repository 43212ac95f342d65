"""A gated recurrent unit over tokens: a small causal network that writes words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


class GRU(nnx.Module):
    """Reads tokens one after another and says, at each of them, what may come next; with x an embedded token,

        r = σ(W_r x + U_r h + b_r)                reset: how much of the past a new thought takes up
        z = σ(W_z x + U_z h + b_z)                update: how much of the past stays
        n = tanh(W_n x + b_n + r ⊙ (U_n h + c))
        h ← (1 − z) ⊙ n + z ⊙ h
        logits = V h + d

    Called with `(B, L)` tokens it reads them all. `init_carry` and `step` read one token at a time and give the same
    logits: what `SequencePolicy` writes a response of T tokens with, in T steps in place of T readings.

    Args:
        num_tokens: how many different tokens may be read, at least 1.
        hidden_features: size of h, at least 1.
        num_outputs: how many of them may be written, the first ones; prompts that are only read come last. None: all.
        embed_features: size of x, at least 1.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1, or there are more outputs than tokens.

    Reference: Cho et al. (2014), arXiv:1406.1078; the reset gate behind the product with U_n, as in cuDNN.
    """

    def __init__(
        self,
        num_tokens: int,
        hidden_features: int,
        num_outputs: int | None = None,
        embed_features: int = 32,
        *,
        rngs: nnx.Rngs,
    ):
        num_outputs = num_tokens if num_outputs is None else num_outputs
        sizes = (num_tokens, hidden_features, num_outputs, embed_features)
        if min(sizes) < 1 or num_outputs > num_tokens:
            raise ValueError(f"GRU: got sizes {sizes}, needs at least 1 each, and no more outputs than tokens")
        self.hidden_features = hidden_features
        self.embed = nnx.Embed(num_tokens, embed_features, rngs=rngs)
        self.inputs = nnx.Linear(embed_features, 3 * hidden_features, rngs=rngs)
        self.recurrent = nnx.Linear(hidden_features, 3 * hidden_features, rngs=rngs)
        self.outputs = nnx.Linear(hidden_features, num_outputs, rngs=rngs)

    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L V"]:
        """Logits `(B, L, num_outputs)`; those at position i are about token i + 1, and know tokens 0 … i."""

        def read(h, x):
            h = self._next(h, x)
            return h, h

        inputs = jnp.swapaxes(self.inputs(self.embed(tokens)), 0, 1)  # of all tokens in one product, time first
        _, hidden = jax.lax.scan(read, self.init_carry(len(tokens)), inputs)
        return self.outputs(jnp.swapaxes(hidden, 0, 1))

    def init_carry(self, batch: int) -> Float[Array, "B H"]:
        """h before the first token."""
        return jnp.zeros((batch, self.hidden_features), self.recurrent.kernel.dtype)

    def step(self, carry: Float[Array, "B H"], tokens: Int[Array, "B"]) -> tuple[Array, Float[Array, "B V"]]:
        """Read one more token: the next h, and logits `(B, num_outputs)` about the token after it."""
        carry = self._next(carry, self.inputs(self.embed(tokens)))
        return carry, self.outputs(carry)

    def _next(self, h: Float[Array, "B H"], x: Float[Array, "B 3H"]) -> Float[Array, "B H"]:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (jnp.split(y, 3, axis=-1) for y in (x, self.recurrent(h)))
        z = jax.nn.sigmoid(x_z + h_z)
        return (1 - z) * jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n) + z * h
