"""Sequences of tokens: how a causal network reads them, writes them, and is scored on them.

A network maps tokens `(B, L)` to logits `(B, L, V)`, of which those at position i are about token i + 1 and may
depend on tokens 0 … i alone. Where it also has `init_carry(B) -> carry` and `step(carry, tokens (B,)) -> (carry,
logits (B, V))`, as `artifex_rl.models.GRU` has, it reads one token at a time. In place of logits it may return a pair
of them and anything else, such as values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from artifex_rl.rl.distributions import Categorical


class Responses(NamedTuple):
    """What was written behind B prompts, in at most T tokens."""

    tokens: Int[Array, "B T"]  # behind the end: the padding
    log_probs: Float[Array, "B T"]  # under the distribution that each was drawn from; 0 behind the end
    mask: Bool[Array, "B T"]  # true up to the end, and on it


# How a sequence is scored


def compute_token_cross_entropy(
    logits: Float[Array, "*B V"], targets: Int[Array, "*B"], label_smoothing: ArrayLike = 0.0
) -> Float[Array, "*B"]:
    """−(1 − ε) log p(target) − ε mean_v log p(v), in nats: cross-entropy with a target that is a little in doubt.

    The mean goes over the tokens that are possible: a logit of −∞ stays out of it.

    Args:
        logits: over V tokens.
        targets: 0 … V − 1.
        label_smoothing: ε in [0, 1): how much of the target's probability goes to all tokens alike.

    Reference: Szegedy et al. (2016), *Rethinking the Inception Architecture*, arXiv:1512.00567, section 7.
    """
    distribution = Categorical(logits)
    log_probs = distribution.log_probs
    everywhere = jnp.mean(log_probs, axis=-1, where=logits > -jnp.inf)
    smoothing = jnp.asarray(label_smoothing, log_probs.dtype)
    return -(1 - smoothing) * distribution.log_prob(targets) - smoothing * everywhere


def compute_teacher_forcing(
    step: ArrayLike, schedule: str = "none", decay_steps: ArrayLike = 1000.0, minimum: ArrayLike = 0.0
) -> Float[Array, ""]:
    """How probable it is, at step i, that a network reads the true token rather than one that it drew itself.

    - "none": 1 throughout; teacher forcing.
    - "linear": 1 − i / k.
    - "exponential": exp(−i / k).
    - "inverse_sigmoid": k / (k + exp(i / k)); near 1 for long, ½ at i = k ln k.

    Args:
        step: i, 0 for the first step.
        schedule: one of those names.
        decay_steps: k, at least 1.
        minimum: it never falls below this, in [0, 1].

    Raises:
        ValueError: `schedule` has no such name.

    Reference: Bengio et al. (2015), *Scheduled Sampling*, arXiv:1506.03099, section 2.4. Its exponential has a base
    k < 1, which is exp(−1/k) here, so that k is a number of steps in all three.
    """
    step, scale = jnp.asarray(step, jnp.float32), jnp.asarray(decay_steps, jnp.float32)
    if schedule == "none":
        return jnp.ones_like(step)
    if schedule == "linear":
        probability = 1 - step / scale
    elif schedule == "exponential":
        probability = jnp.exp(-step / scale)
    elif schedule == "inverse_sigmoid":
        probability = jax.nn.sigmoid(jnp.log(scale) - step / scale)  # the same, and it cannot overflow
    else:
        raise ValueError(f"schedule: got {schedule!r}, needs 'none', 'linear', 'exponential' or 'inverse_sigmoid'")
    return jnp.maximum(probability, jnp.asarray(minimum, jnp.float32))


# How a sequence is written


def restrict_logits(
    logits: Float[Array, "*B V"], temperature: ArrayLike = 1.0, top_k: ArrayLike | None = None, top_p: ArrayLike = 1.0
) -> Float[Array, "*B V"]:
    """Logits at a temperature, with −∞ for all but the likeliest tokens; first `top_k`, then `top_p` of what is left.

    All three may be traced. At temperature 1, without `top_k` and at `top_p` 1 the logits come back as they are.

    Args:
        logits: over V tokens.
        temperature: logits are divided by it, ≥ 0; at 0 the likeliest token alone is left, the first of equals.
        top_k: how many tokens are left, ≥ 1. None: all.
        top_p: in (0, 1]: the fewest tokens whose probabilities add up to at least this are left, one at least.

    Reference: Fan et al. (2018), arXiv:1805.04833, section 5 (top-k); Holtzman et al. (2020), *The Curious Case of
    Neural Text Degeneration*, arXiv:1904.09751, section 3.1 (top-p).
    """
    size = logits.shape[-1]
    temperature, top_p = jnp.asarray(temperature, logits.dtype), jnp.asarray(top_p, logits.dtype)
    top_k = jnp.where(temperature > 0, size if top_k is None else top_k, 1)
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0).astype(logits.dtype)

    order = jnp.argsort(scaled, axis=-1, descending=True, stable=True)
    ranks = jnp.argsort(order, axis=-1)  # the inverse permutation: 0 for the likeliest
    falling = jnp.take_along_axis(scaled, order, axis=-1)
    probs = jax.nn.softmax(jnp.where(_along_last(jnp.arange(size), falling) < top_k, falling, -jnp.inf), axis=-1)
    likelier = jnp.cumsum(probs, axis=-1) - probs  # the probability of all that comes before
    # Sums are rounded: at top_p = 1 they would drop tokens, and the likeliest has nothing before it.
    stays = jnp.take_along_axis((likelier < top_p) | (top_p >= 1), ranks, axis=-1)
    return jnp.where((ranks == 0) | (stays & (ranks < top_k)), scaled, -jnp.inf)


def write_responses(
    network: Any,
    prompts: Int[Array, "B P"],
    key: Array,
    max_length: int,
    adjust: Callable[[Array], Array] = lambda logits: logits,
    eos_id: int | None = None,
    pad_id: int = 0,
) -> Responses:
    """Draw responses token by token, in one scan of `max_length` steps.

    The t-th token is drawn with the t-th of `jax.random.split(key, max_length)`.

    Args:
        network: see the module's docstring.
        prompts: P ≥ 1 tokens each.
        key: a JAX random key.
        max_length: T ≥ 1.
        adjust: what is done to logits `(B, V)` before a token is drawn from them.
        eos_id: the token that ends a response. None: every response has T tokens.
        pad_id: what stands behind the end.
    """

    def choose(logits, alive, key):
        here = Categorical(adjust(logits))
        drawn = here.sample(key).astype(prompts.dtype)
        token = jnp.where(alive, drawn, jnp.asarray(pad_id, prompts.dtype))
        log_prob = jnp.where(alive, here.log_prob(drawn), 0.0)
        still = alive if eos_id is None else alive & (token != eos_id)
        return token, still, (token, log_prob, alive)

    start = jnp.ones(len(prompts), bool)
    return Responses(*unroll(network, prompts, choose, start, jax.random.split(key, max_length)))


def mix_tokens(
    network: Any, prompts: Int[Array, "B P"], tokens: Int[Array, "B T"], teacher_forcing: ArrayLike, key: Array
) -> Int[Array, "B T"]:
    """Scheduled sampling: what stands at each place is the true token, or the network's own draw for that place.

    A draw is made from what the network says after it has read the prompt and the *mixed* tokens before, as it would
    be when writing. Each token has a coin of its own.

    Args:
        network: see the module's docstring; without `step` it reads T times.
        prompts: P ≥ 1 tokens each.
        tokens: the true ones.
        teacher_forcing: probability of the true token, in [0, 1].
        key: a JAX random key.

    Reference: Bengio et al. (2015), *Scheduled Sampling*, arXiv:1506.03099, section 2.3 and figure 1.
    """
    coin_key, draw_key = jax.random.split(key)
    forced = jax.random.uniform(coin_key, tokens.shape) < jnp.asarray(teacher_forcing, jnp.float32)

    def choose(logits, _, now):
        true, forced, key = now
        token = jnp.where(forced, true, Categorical(logits).sample(key).astype(true.dtype))
        return token, _, token

    places = tokens.T, forced.T, jax.random.split(draw_key, tokens.shape[1])
    return unroll(network, prompts, choose, None, places)


def unroll(
    network: Any, prompts: Int[Array, "B P"], choose: Callable[..., tuple[Array, Any, Any]], start: Any, places: Any
) -> Any:
    """Read prompts, and then, place after place, whatever token is chosen for it.

    Args:
        network: see the module's docstring.
        prompts: P ≥ 1 tokens each.
        choose: `choose(logits (B, V), memory, place) -> (tokens (B,), memory, seen)`.
        start: the first memory.
        places: arrays with an axis T first; `choose` is given one entry after another.

    Returns:
        All that was seen, arrays `(B, T, ...)` of what were `(B, ...)`.
    """
    prompts = jnp.asarray(prompts)
    length = len(jax.tree.leaves(places)[0])
    read, carry = _reader(network, prompts, length)

    def step(now, place):
        carry, last, memory = now
        carry, output = read(carry, last)
        token, memory, seen = choose(get_logits(output), memory, place)
        return (carry, token, memory), seen

    _, seen = jax.lax.scan(step, (carry, prompts[:, -1], start), places)
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), seen)


def get_logits(output: Any) -> Float[Array, "*B V"]:
    """The logits of what a network returned: all of it, or the first of a pair."""
    return output[0] if isinstance(output, tuple) else output


def _reader(network: Any, prompts: Int[Array, "B P"], length: int) -> tuple[Callable[..., Any], Any]:
    """`read(carry, tokens (B,)) -> (carry, output)`, and the carry of prompts read up to their last token."""
    begin = prompts[:, :-1]
    if hasattr(network, "init_carry") and hasattr(network, "step"):
        carry = network.init_carry(len(prompts))
        carry, _ = jax.lax.scan(lambda carry, token: (network.step(carry, token)[0], None), carry, begin.T)
        return network.step, carry

    def read(carry, last):
        tokens, position = carry
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, last, position, axis=1)
        output = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, position, axis=1, keepdims=False), network(tokens)
        )
        return (tokens, position + 1), output

    room = jnp.zeros((len(prompts), length), prompts.dtype)  # not yet written, and so never seen
    return read, (jnp.concatenate([begin, room], axis=1), jnp.asarray(begin.shape[1]))


def _along_last(x: Array, like: Array) -> Array:
    return x.reshape((1,) * (like.ndim - 1) + x.shape)
