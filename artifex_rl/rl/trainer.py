"""What the trainers that learn from rewards share: drawing and scoring samples, and batches checked on the host."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.rl.batches import check_finite, one_step_batch, read_batch, repeat_rows
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.experience import MAX_LOG_PROB, check_experience, check_numbers
from artifex_rl.rl.forms import KnownForms
from artifex_rl.rl.policies import Evaluation, as_policy
from artifex_rl.rl.scoring import score_samples
from artifex_rl.rl.specification import Specification, all_finite, plausible_actions
from artifex_rl.trainer import Trainer, TrainState

#: Keys for drawing samples come from a stream of their own, apart from those of the steps 0, 1, 2, …
SAMPLES = 2**32 - 2


class RLTrainer(Trainer):
    """A trainer whose batches hold observations, actions and rewards, or observations alone and a `reward_fn`.

    Subclasses name the keys that they read in `required` and `optional`, and write `compute_loss`, which scores
    actions with `evaluate_actions`.

    Raises:
        TypeError: the model is no policy and cannot be called, or another argument is of the wrong kind.
    """

    independent_rows = False
    required: ClassVar[tuple[str, ...]] = ("observations", "actions", "rewards")
    optional: ClassVar[tuple[str, ...]] = ("dones", "mask", "lengths", "group_size")

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer, config: Any = None, **options: Any):
        as_policy(model)
        super().__init__(model, optimizer, config, **options)
        self._compiled_sample = jax.jit(self._sample)
        self._forms = KnownForms()
        self._specification = Specification(
            lambda state, observations, actions, axes: self.evaluate_actions(
                self.merge(state)[0], observations, actions, batch_axes=axes
            )
        )

    @property
    def num_generations(self) -> int:
        """Samples for each observation in `train_step(batch, reward_fn, key)`."""
        return getattr(self.config, "num_generations", 1)

    @property
    def sequential(self) -> bool:
        """Whether the policy's log-probabilities are `(B, T)`, one for each token or step of a response."""
        return getattr(self.model, "sequential", False)

    def train_step(self, batch: Any, reward_fn: Any = None, key: Array | None = None) -> dict[str, float]:
        """Train on one batch; with a `reward_fn`, on samples that are drawn for its observations and scored now.

        Args:
            batch: experience; see the class. With a `reward_fn`, only its observations are read.
            reward_fn: any Python callable `reward_fn(samples, conditions)` that returns `(B,)` finite rewards;
                `conditions` are the observations, repeated for each sample. Where it takes a `mask`, it is given
                that of the tokens.
            key: a JAX random key for the samples. None: one that follows from the trainer's own key and its step.

        Returns:
            Metrics as floats.

        Raises:
            ValueError: the batch or the rewards are not what they need to be. Nothing has changed.
            FloatingPointError: the loss is NaN or infinite. Nothing has changed.
            Exception: whatever `reward_fn` raises, with a note that names it. Nothing has changed.
        """
        if reward_fn is not None:
            batch = self.collect(batch, reward_fn, key)
        elif key is not None:
            raise ValueError("reward_fn: got None beside a key, needs a callable: keys are for drawing samples")
        return super().train_step(batch)

    def collect(self, batch: Any, reward_fn: Any, key: Array | None = None) -> dict[str, Any]:
        """Draw samples for each observation and score them: a batch for `train_step`.

        As many for each as "group_size" of the batch says, or else `num_generations`. Where the policy has a method
        `outcome`, the reward sees `outcome(actions)`: the image, say, and not the denoising that led to it.
        """
        if not callable(reward_fn):
            raise ValueError(f"reward_fn: got {type(reward_fn).__name__}, needs a callable of (samples, conditions)")
        given = read_batch(batch, ("observations",), tuple({"group_size"} & {*self.optional}))
        observations, group = given["observations"], {k: v for k, v in given.items() if k == "group_size"}
        check_finite("observations", observations)
        rows = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(observations)}
        if len(rows) != 1 or () in rows:
            raise ValueError(f"observations: got leading axes {sorted(rows)}, needs one batch axis, shared by all")
        observations = repeat_rows(observations, group.get("group_size", self.num_generations))
        if key is None:
            key = jax.random.fold_in(jax.random.fold_in(self.key, SAMPLES), self.step)
        try:
            actions, log_probs, mask, values = self._compiled_sample(*self.state, observations, key)
        except (TypeError, ValueError) as error:
            shapes = jax.tree.map(np.shape, observations)
            raise ValueError(
                f"observations: got shape {shapes}, for which the policy cannot draw: {error}"
            ) from error
        more = {"mask": mask} if mask is not None and _takes(reward_fn, "mask") else {}
        samples = self.model.outcome(actions) if hasattr(self.model, "outcome") else actions
        rewards = np.asarray(score_samples("reward_fn", reward_fn, samples, observations, **more))
        check_finite(f"reward_fn ({getattr(reward_fn, '__name__', type(reward_fn).__name__)})", rewards)
        return one_step_batch(observations, actions, rewards, log_probs, values, mask) | group

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The batch under canonical names, its shapes checked; see `check_experience` for what it is then."""
        known = self._forms.read(batch)
        if known is not None:
            return known
        checked = read_batch(batch, self.required, self.optional)
        checked = check_experience(checked, self.specification, self.sequential, self.num_generations)
        self._forms.learn(batch, checked)
        return checked

    def validate(self, batch: dict[str, Any]) -> None:
        """The numbers of a prepared batch checked; see `check_numbers`."""
        check_numbers(batch, self.specification(batch), self.batch_axes(batch))

    def plausible(self, batch: dict[str, Any]) -> Array | None:
        """Whether `validate` would raise nothing, as a traced flag."""
        seen = self._specification.known(batch["observations"], batch["actions"], self.batch_axes(batch))
        actions = plausible_actions(batch["actions"], seen)
        if actions is None:
            return None
        rest, right = dict(batch), actions
        if isinstance(seen.distribution, Categorical):
            for name in {"log_probs", "ref_log_probs"} & batch.keys():
                log_probs = rest.pop(name)
                right &= jnp.all((log_probs <= MAX_LOG_PROB) & (log_probs > -jnp.inf))
        return right & all_finite(rest)

    def evaluate_actions(
        self, model: nnx.Module, observations: Any, actions: Any, mask: Any = None, batch_axes: int = 1
    ) -> Evaluation:
        """`as_policy(model).evaluate`, for experience with one batch axis or with two, such as `(T, N)`.

        With two, the policy sees one axis of T · N entries; its answer comes back as `(T, N)`, but for the
        distribution, which keeps the one axis.
        """
        if batch_axes == 1:
            return as_policy(model).evaluate(observations, actions, mask)
        lead = jax.tree.leaves(actions)[0].shape[:batch_axes]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[batch_axes:]), (observations, actions, mask))
        evaluation = as_policy(model).evaluate(*flat)
        shaped = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), evaluation._replace(distribution=None))
        return shaped._replace(distribution=evaluation.distribution)

    def batch_axes(self, batch: dict[str, Any]) -> int:
        """How many leading axes of observations and actions are batch: 2 for experience `(T, N)`, else 1."""
        return 1 if self.sequential else np.ndim(batch["rewards"])

    def specification(self, batch: dict[str, Any]) -> Evaluation:
        """Shapes of what the policy says about the batch's actions; traced once for each shape of batch.

        Raises:
            ValueError: the policy cannot read the observations or the actions.
        """
        return self._specification(
            lambda: self.state, batch["observations"], batch["actions"], self.batch_axes(batch)
        )

    def _sample(self, variables, step, observations, key):
        policy = as_policy(self.merge(TrainState(variables, step))[0])
        if hasattr(policy, "sample_masked"):
            actions, log_probs, mask = policy.sample_masked(observations, key)
        else:
            (actions, log_probs), mask = policy.sample(observations, key), None
        return actions, log_probs, mask, policy.evaluate(observations, actions, mask).values


def masked_mean(x: Float[Array, "*B"], mask: Array | None = None) -> Float[Array, ""]:
    """Mean over the entries under the mask; 0 where it holds nothing. What is outside may be NaN."""
    if mask is None:
        return jnp.mean(x)
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask, dtype=x.dtype), 1)


def _takes(function: Any, name: str) -> bool:
    """Whether a callable can be given the keyword: by name, or among **kwargs."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
