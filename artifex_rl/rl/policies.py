"""Policies: what the trainers draw actions from and score actions with, and how a plain network becomes one.

A policy is anything with

- `sample(observations, key) -> (actions, log_probs)`
- `evaluate(observations, actions, mask=None) -> Evaluation`

and log-probabilities `(B,)`, one for each action, or `(B, T)`, one for each token or denoising step of a response; a
policy of the second kind has the attribute `sequential = True`. A plain `nnx.Module` is adapted by `as_policy`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from artifex_rl.generative.sequences import write_responses
from artifex_rl.rl.distributions import Categorical, Distribution


class Evaluation(NamedTuple):
    """How a policy sees actions that were taken. Shapes are `(B,)`, or `(B, T)` for a sequential policy."""

    log_probs: Float[Array, "B *T"]  # of the actions; 0 under a false mask
    entropy: Float[Array, "B *T"]  # of the distributions they came from, in nats
    values: Float[Array, "B *T"] | None = None  # V(s), of a policy that has a critic
    mask: Bool[Array, "B *T"] | None = None  # which entries count; None: all
    distribution: Distribution | None = None  # where the policy has one in closed form, for exact divergences


@runtime_checkable
class Policy(Protocol):
    """The two methods of a policy; see the module's docstring."""

    def sample(self, observations: Any, key: Array) -> tuple[Any, Array]:
        """Actions for a batch of observations, and their log-probabilities."""

    def evaluate(self, observations: Any, actions: Any, mask: Array | None = None) -> Evaluation:
        """Log-probabilities and the rest for actions that were taken; differentiable."""


def as_policy(model: Any) -> Policy:
    """`model` itself if it has both methods of a policy; otherwise a policy around what its call returns.

    The call may return logits `(B, A)`, a distribution, or a pair of either and values `(B,)` or `(B, 1)`.

    Raises:
        TypeError: `model` cannot be called.
    """
    if isinstance(model, Policy):
        return model
    if not callable(model):
        raise TypeError(
            f"model: got {type(model).__name__}, needs a policy (methods sample and evaluate) or a module whose call "
            f"returns logits, a distribution, or a pair of either and values"
        )
    return ModulePolicy(model)


class ModulePolicy:
    """The policy of a module whose call returns logits, a distribution, or a pair of either and values.

    Args:
        module: maps observations `(B, ...)` to one of those.
    """

    sequential = False

    def __init__(self, module: Any):
        self.module = module

    def sample(self, observations: Array, key: Array) -> tuple[Array, Float[Array, "B"]]:
        distribution, _ = self.distribution(observations)
        actions = distribution.sample(key)
        return actions, distribution.log_prob(actions)

    def evaluate(self, observations: Array, actions: Array, mask: Array | None = None) -> Evaluation:
        distribution, values = self.distribution(observations)
        log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        if values is not None and values.shape == (*log_probs.shape, 1):
            values = values[..., 0]
        if values is not None and values.shape != log_probs.shape:
            raise ValueError(f"values: the model returned shape {values.shape}, needs {log_probs.shape}")
        return Evaluation(_masked(log_probs, mask), _masked(entropy, mask), values, mask, distribution)

    def distribution(self, observations: Array) -> tuple[Distribution, Array | None]:
        """What the module returned, as a distribution and values.

        Raises:
            TypeError: it is neither logits, nor a distribution, nor a pair of either and values.
        """
        output = self.module(observations)
        output, values = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
        if isinstance(output, jax.Array) and output.ndim and jnp.issubdtype(output.dtype, jnp.floating):
            output = Categorical(output)
        if not isinstance(output, Distribution) or not isinstance(values, jax.Array | None):
            raise TypeError(
                f"model: {type(self.module).__name__} returned {type(output).__name__}"
                f"{'' if values is None else f' and {type(values).__name__}'}, needs logits, a distribution, or a "
                f"pair of either and values"
            )
        return output, values


class SequencePolicy(nnx.Module):
    """Writes a response to a prompt, one token after another, with a causal network over tokens.

    The response ends with the first `eos_id` that is drawn, or after `max_length` tokens. Its mask covers all its
    tokens, EOS included, and comes from its length: a prompt, a response or the padding may hold any token id.

    Args:
        network: maps tokens `(B, L)` to logits `(B, L, V)`, of which those at position i may depend on tokens 0 … i
            alone; or to a pair of those and values `(B, L)`. Where it also has `init_carry(B) -> carry` and
            `step(carry, tokens (B,)) -> (carry, logits (B, V))` (or a pair again), as `artifex_rl.models.GRU` has,
            responses are written with these: T steps in place of T passes over the whole sequence.
        max_length: most tokens of a response, T ≥ 1.
        eos_id: the token that ends a response. None: every response has `max_length` tokens.
        pad_id: what stands behind the end; it never counts.
        temperature: logits are divided by it, > 0, for drawing *and* for scoring: the log-probabilities are those of
            the distribution that was drawn from.

    Raises:
        ValueError: an argument is out of its range.
    """

    sequential = True

    def __init__(
        self,
        network: nnx.Module,
        max_length: int,
        eos_id: int | None = None,
        pad_id: int = 0,
        temperature: float = 1.0,
    ):
        if max_length < 1 or not temperature > 0:
            raise ValueError(
                f"got max_length={max_length}, temperature={temperature}; needs at least 1, and more than 0"
            )
        self.network = network
        self.max_length, self.eos_id, self.pad_id, self.temperature = max_length, eos_id, pad_id, temperature

    def sample(self, observations: Int[Array, "B P"], key: Array) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
        """Responses and their log-probabilities; `sample_masked` returns their mask as well."""
        return self.sample_masked(observations, key)[:2]

    def sample_masked(
        self, observations: Int[Array, "B P"], key: Array
    ) -> tuple[Int[Array, "B T"], Float[Array, "B T"], Bool[Array, "B T"]]:
        """Responses to prompts of one length P ≥ 1: tokens, log-probabilities (0 behind the end), and the mask."""
        return tuple(
            write_responses(
                self.network,
                jnp.asarray(observations),
                key,
                self.max_length,
                lambda logits: logits / self.temperature,
                self.eos_id,
                self.pad_id,
            )
        )

    def evaluate(
        self, observations: Int[Array, "B P"], actions: Int[Array, "B T"], mask: Bool[Array, "B T"] | None = None
    ) -> Evaluation:
        """Score whole responses in one pass of the network. None as mask: every token counts."""
        prompts, responses = jnp.asarray(observations), jnp.asarray(actions)
        start, length = prompts.shape[1], responses.shape[1]
        tokens = jnp.concatenate([prompts, responses.astype(prompts.dtype)], axis=1)
        output = self.network(tokens)
        logits, values = output if isinstance(output, tuple) else (output, None)
        logits = logits / self.temperature
        distribution = Categorical(logits[:, start - 1 : start - 1 + length])  # the logits at i are about token i + 1
        if values is not None:
            values = values.reshape(logits.shape[:2])[:, start - 1 : start - 1 + length]
        log_probs, entropy = distribution.log_prob(responses), distribution.entropy()
        return Evaluation(_masked(log_probs, mask), _masked(entropy, mask), values, mask, distribution)


#: Rows that a frozen policy scores at a time.
ROWS = 1024


class FrozenPolicy:
    """A reference policy: a model as it is now, in evaluation mode, for scoring alone.

    Calling it is compiled once for each shape: `frozen(observations, actions, mask)` returns an `Evaluation`.

    Args:
        reference: the model to freeze. It may be trained on afterwards; this keeps what it was.
        model: the model in training. It must be another object: a reference that moves along holds nothing back.
        name: what the caller's argument is called, for the error.

    Raises:
        ValueError: `reference` is the model in training, or shares variables with it.
    """

    def __init__(self, reference: nnx.Module, model: nnx.Module, name: str = "reference_model"):
        mine, theirs = ({id(v) for v in _variables(m)} for m in (reference, model))
        if reference is model or mine & theirs:
            raise ValueError(f"{name}: got the model that is trained itself, needs a copy: nnx.clone(model)")
        graphdef, state = nnx.split(reference)
        self._values, treedef = jax.tree.flatten(state)

        def evaluate(values, observations, actions, mask):
            model = nnx.merge(graphdef, jax.tree.unflatten(treedef, values))
            model.eval()
            return as_policy(model).evaluate(observations, actions, mask)

        self._evaluate = jax.jit(evaluate)
        self._log_probs = jax.jit(lambda *inputs: evaluate(*inputs).log_probs)

    def __call__(self, observations: Any, actions: Any, mask: Array | None = None) -> Evaluation:
        return self._evaluate(self._values, observations, actions, mask)

    def log_probs(self, observations: Any, actions: Any, mask: Array | None = None) -> np.ndarray:
        """Log-probabilities alone, `ROWS` rows at a time: a whole dataset at once may not fit in memory."""
        inputs, rows = (observations, actions, mask), len(jax.tree.leaves(actions)[0])
        if rows <= ROWS:
            return np.asarray(self._log_probs(self._values, *inputs))
        answers = []
        for start in range(0, rows, ROWS):
            chosen = np.arange(start, start + ROWS) % rows  # the last ones begin again: one shape, compiled once
            part = jax.tree.map(lambda leaf, chosen=chosen: np.asarray(leaf)[chosen], inputs)
            answers.append(np.asarray(self._log_probs(self._values, *part)))
        return np.concatenate(answers)[:rows]


def _variables(model: nnx.Module) -> list[nnx.Variable]:
    leaves = jax.tree.leaves(nnx.state(model), is_leaf=lambda x: isinstance(x, nnx.Variable))
    return [leaf for leaf in leaves if isinstance(leaf, nnx.Variable)]


def _masked(x: Array, mask: Array | None) -> Array:
    return x if mask is None else jnp.where(mask, x, 0.0)
