"""Autoregressive models: learn to foretell each token from those before it, and so to write."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from artifex_rl.configs import choice, config, count, number
from artifex_rl.generative.sequences import (
    Responses,
    compute_teacher_forcing,
    compute_token_cross_entropy,
    get_logits,
    mix_tokens,
    restrict_logits,
    write_responses,
)
from artifex_rl.rl.policies import SequencePolicy
from artifex_rl.rl.specification import Specification, check_actions
from artifex_rl.rl.trainer import masked_mean
from artifex_rl.trainer import Metrics, TrainState
from artifex_rl.trainers.base import GenerativeTrainer
from artifex_rl.trainers.token_batches import check_prompts, read_tokens, split_prompts


@config
class AutoregressiveConfig:
    """Settings of `AutoregressiveTrainer`.

    Args:
        label_smoothing: how much of each target's probability goes to all tokens alike, in [0, 1).
        scheduled_sampling: how the network's own draws take the place of true tokens among what it reads, step by
            step; see `compute_teacher_forcing`. "none": they never do.
        decay_steps: k of that schedule, at least 1.
        min_teacher_forcing: the probability of a true token never falls below this, in [0, 1].
        max_length: most tokens of what `generate` and `sample` write.
        eos_id: the token that ends what is written, ≥ 0. None: it is always `max_length` tokens long.
        pad_id: what stands behind the end, ≥ 0.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    label_smoothing: float = number(0.0, low=0, below=1)
    scheduled_sampling: str = choice("none", "linear", "exponential", "inverse_sigmoid")
    decay_steps: float = number(1000.0, low=1)
    min_teacher_forcing: float = number(0.0, low=0, high=1)
    max_length: int = count(64)
    eos_id: int | None = count(None, low=0)
    pad_id: int = count(0, low=0)


@config
class Sampling:
    """How tokens are drawn: `restrict_logits` says what each does. Greedy at temperature 0."""

    temperature: float = number(1.0, low=0)
    top_k: int | None = count(None)
    top_p: float = number(1.0, above=0, high=1)


class AutoregressiveTrainer(GenerativeTrainer):
    """Maximum likelihood, token by token: minimises −log p(token | prompt, tokens before), averaged over tokens.

    The model is a causal network over tokens, such as `artifex_rl.models.GRU`; see `artifex_rl.generative.sequences`.
    Trained, it is the network of a `SequencePolicy`: `trainer.policy()` is one.

    Batches hold "tokens" `(B, T)`; "observations" or "prompts" `(B, P)`, which are read and not learnt, or else the
    first of the tokens is the prompt of the others; and "mask" `(B, T)` or "lengths" `(B,)`, saying which tokens
    count, the end among them. None: all count. Behind the last that counts, any integer may stand.

    With scheduled sampling the network reads a mixture of true tokens and its own draws, made in its evaluation mode,
    one after another: a network without `step` reads the sequence T times for it. What it is to foretell stays true.
    `evaluate` reads true tokens alone.

    Metrics, averaged over the tokens that count: "loss"; "nats_per_token" −log p, without label smoothing;
    "bits_per_token" and "perplexity", log₂ and exponential of the same; "accuracy" of the likeliest token;
    "teacher_forcing", the probability of a true token; "grad_norm".

    Reference: Williams & Zipser (1989), doi:10.1162/neco.1989.1.2.270 (teacher forcing); Bengio et al. (2015),
    *Scheduled Sampling*, arXiv:1506.03099.
    """

    config_class = AutoregressiveConfig
    required = ("tokens",)
    optional = ("observations", "mask", "lengths")

    def __init__(
        self, model: nnx.Module, optimizer: nnx.Optimizer, config: AutoregressiveConfig | None = None, **options: Any
    ):
        super().__init__(model, optimizer, config, **options)
        self._specification = Specification(
            lambda state, prompts, tokens, _: SequencePolicy(self.merge(state)[0], 1).evaluate(prompts, tokens)
        )

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """Cross-entropy of a batch; with "inputs" in it, after reading those in place of the true tokens."""
        prompts, tokens, mask = batch["observations"], jnp.asarray(batch["tokens"]), batch.get("mask")
        read = jnp.concatenate([prompts, batch.get("inputs", tokens)[:, :-1]], axis=1)
        logits = get_logits(model(read))[:, prompts.shape[1] - 1 :]  # those at i are about token i + 1
        nats = masked_mean(compute_token_cross_entropy(logits, tokens), mask)
        loss = masked_mean(compute_token_cross_entropy(logits, tokens, self.config.label_smoothing), mask)
        right = jnp.argmax(logits, axis=-1).astype(tokens.dtype) == tokens
        return loss, {
            "nats_per_token": nats,
            "bits_per_token": nats / math.log(2),
            "perplexity": jnp.exp(nats),
            "accuracy": masked_mean(right.astype(nats.dtype), mask),
            "teacher_forcing": batch.get("teacher_forcing", jnp.ones(())),
        }

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """A gradient step, on inputs that are mixed as the schedule says."""
        config = self.config
        if config.scheduled_sampling == "none":
            return self.gradient_step(state, batch, key)
        schedule = config.scheduled_sampling, config.decay_steps, config.min_teacher_forcing
        probability = compute_teacher_forcing(state.step, *schedule)
        mix_key, key = jax.random.split(key)
        reader, prompts, tokens = self.evaluation_parts(state)[0], batch["observations"], jnp.asarray(batch["tokens"])
        inputs = mix_tokens(reader, prompts, tokens, probability, mix_key)
        return self.gradient_step(state, {**batch, "inputs": inputs, "teacher_forcing": probability}, key)

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes and types that do not fit; the batch is then as `split_prompts` has it."""
        split_prompts(batch)
        self._specify(batch)

    def validate(self, batch: dict[str, Any]) -> None:
        """ValueError for tokens that the network has no logits for, and for negative ones in prompts."""
        check_actions("tokens", batch["tokens"], self._specify(batch))
        check_prompts("observations", batch["observations"])

    def check_labels(self, labels: np.ndarray) -> None:
        """ValueError for a negative token."""
        check_prompts("labels", labels)

    def generate(
        self,
        prompts: Int[Array, "B P"],
        key: Array,
        length: int | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> Responses:
        """Write behind prompts, in one compiled scan of `max_length` steps.

        Compiled once for each shape of prompts: the other arguments compile nothing. A shorter `length` gives the
        first tokens of what a longer one gives, at the same cost.

        Args:
            prompts: integers; P ≥ 1.
            key: a JAX random key; the tokens are those that `policy().sample` draws with it.
            length: most tokens, 1 to `max_length`. None: `max_length`.
            temperature: ≥ 0; 0 takes the likeliest token each time, and 1 writes as the network does.
            top_k: draw from the k likeliest tokens alone, ≥ 1. None: from all.
            top_p: draw from the likeliest tokens whose probabilities add up to this, in (0, 1].

        Returns:
            Tokens, log-probabilities under the distributions that they were drawn from, and the mask, `(B, length)`.

        Raises:
            ValueError: an argument is out of its range.
        """
        sampling, longest = Sampling(temperature, top_k, top_p), self.config.max_length
        length = longest if length is None else length
        if isinstance(length, bool) or not hasattr(length, "__index__") or not 1 <= length <= longest:
            raise ValueError(f"length: got {length!r}, needs an integer from 1 to max_length, {longest}")
        prompts = read_tokens("prompts", prompts, "(B, P)")
        check_prompts("prompts", prompts)
        top_k = np.int32(min(sampling.top_k or math.inf, np.iinfo(np.int32).max))
        numbers = np.float32(sampling.temperature), top_k, np.float32(sampling.top_p)
        written = jax.tree.map(np.asarray, self.call("_write", prompts, key, *numbers))
        if np.isnan(written.log_probs).any():
            raise ValueError(
                f"prompts: got tokens up to {prompts.max()}, needs such that the network knows: it says NaN"
            )
        return jax.tree.map(lambda x: jnp.asarray(x[:, :length]), written)

    def sample(self, num_samples: int, key: Array, labels: Any = None, **options: Any) -> Int[Array, "B T"]:
        """What `generate` writes behind one token each, `labels`; it needs them, and takes the same options."""
        if labels is None:
            raise ValueError("labels: got None, needs the token that each sequence is to begin with")
        sampling = Sampling(**options)
        options = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
        return super().sample(num_samples, key, labels, **options)

    def draw(
        self, parts: tuple[Any, ...], num_samples: int, key: Array, labels: Any = None, **options: Any
    ) -> Int[Array, "B T"]:
        """Tokens behind prompts of one token."""
        return self._write(parts, labels[:, None], key, **options).tokens

    def policy(self, temperature: float = 1.0) -> SequencePolicy:
        """The model as a policy, sharing its weights: what the trainers of `artifex_rl.rl` train on."""
        config = self.config
        return SequencePolicy(self.model, config.max_length, config.eos_id, config.pad_id, temperature)

    def _write(self, parts, prompts, key, temperature: ArrayLike, top_k: ArrayLike | None, top_p: ArrayLike):
        config = self.config

        def adjust(logits):
            return restrict_logits(logits, temperature, top_k, top_p)

        return write_responses(parts[0], prompts, key, config.max_length, adjust, config.eos_id, config.pad_id)

    def _specify(self, batch: dict[str, Any]) -> Any:
        return self._specification(lambda: self.state, batch["observations"], batch["tokens"], name="tokens")
