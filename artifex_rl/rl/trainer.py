"""What the trainers that learn from rewards share: drawing and scoring samples, and checks of their batches."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from artifex_rl.rl.batches import (
    check_finite,
    check_leading,
    check_shape,
    one_step_batch,
    read_batch,
    read_flags,
    read_mask,
    repeat_rows,
    score,
)
from artifex_rl.rl.policies import Evaluation, as_policy
from artifex_rl.trainer import Trainer, TrainState

#: Keys for drawing samples come from a stream of their own, apart from those of the steps 0, 1, 2, …
SAMPLES = 2**32 - 2


class RLTrainer(Trainer):
    """A trainer whose batches hold observations, actions and rewards, or observations alone and a `reward_fn`.

    Subclasses name the keys that they read in `required` and `optional`, and write `compute_loss`, which scores
    actions with `evaluate_actions`.
    """

    independent_rows = False
    required: ClassVar[tuple[str, ...]] = ("observations", "actions", "rewards")
    optional: ClassVar[tuple[str, ...]] = ("dones", "mask", "lengths", "group_size")

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer, config: Any = None, **options: Any):
        as_policy(model)
        super().__init__(model, optimizer, config, **options)
        self._compiled_sample = jax.jit(self._sample)
        self._specifications: dict[Any, Evaluation] = {}

    @property
    def num_generations(self) -> int:
        """Samples for each observation in `train_step(batch, reward_fn, key)`."""
        return getattr(self.config, "num_generations", 1)

    def train_step(self, batch: Any, reward_fn: Any = None, key: Array | None = None) -> dict[str, float]:
        """Train on one batch; with a `reward_fn`, on samples that are drawn for its observations and scored now.

        Args:
            batch: experience; see the class. With a `reward_fn`, only its observations are read.
            reward_fn: any Python callable `reward_fn(samples, conditions)` that returns `(B,)` finite rewards;
                `conditions` are the observations, repeated for each sample. A parameter named `mask` is given the
                mask of the tokens.
            key: a JAX random key for the samples. None: one that follows from the trainer's own key and its step.

        Returns:
            Metrics as floats.

        Raises:
            ValueError: the batch or the rewards are not what they need to be. Nothing has changed.
            RuntimeError: `reward_fn` raised. Nothing has changed.
            FloatingPointError: the loss is NaN. Nothing has changed.
        """
        if reward_fn is not None:
            batch = self.collect(batch, reward_fn, key)
        elif key is not None:
            raise ValueError("reward_fn: got None beside a key, needs a callable: keys are for drawing samples")
        return super().train_step(batch)

    def collect(self, batch: Any, reward_fn: Any, key: Array | None = None) -> dict[str, Any]:
        """Draw `num_generations` samples for each observation and score them: a batch for `train_step`."""
        if not callable(reward_fn):
            raise ValueError(f"reward_fn: got {type(reward_fn).__name__}, needs a callable of (samples, conditions)")
        observations = read_batch(batch, ("observations",))["observations"]
        check_finite("observations", observations)
        rows = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(observations)}
        if len(rows) != 1 or () in rows:
            raise ValueError(f"observations: got leading axes {sorted(rows)}, needs one batch axis, shared by all")
        observations = repeat_rows(observations, self.num_generations)
        if key is None:
            key = jax.random.fold_in(jax.random.fold_in(self.key, SAMPLES), self.step)
        try:
            actions, log_probs, mask, values = self._compiled_sample(*self.state, observations, key)
        except (TypeError, ValueError) as error:
            shapes = jax.tree.map(np.shape, observations)
            raise ValueError(
                f"observations: got shape {shapes}, which the policy cannot sample for: {error}"
            ) from error
        takes_mask = mask is not None and "mask" in _parameters(reward_fn)
        more = {"mask": mask} if takes_mask else {}
        rewards = score(reward_fn, actions, observations, len(log_probs), **more)
        return one_step_batch(observations, actions, rewards, log_probs, values, mask)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The batch under canonical names, checked against the policy: shapes, actions, finite numbers, flags.

        Afterwards `rewards` has the shape that all else is like: `(T,)`, `(T, N)`, or for a sequential policy `(B,)`
        or `(B, T)`; `dones` and `mask` are booleans; observations are repeated for the samples of a group.
        """
        batch = read_batch(batch, self.required, self.optional)
        rewards = batch["rewards"] = np.asarray(batch["rewards"]).astype(np.float32)
        if rewards.ndim not in (1, 2):
            raise ValueError(f"rewards: got shape {rewards.shape}, needs (T,) or (T, N)")
        lead = rewards.shape[:1] if self._sequential else rewards.shape
        group_size = batch.get("group_size", self.num_generations)
        sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch["observations"])}
        if sizes == {(len(rewards) // group_size,)} and len(rewards) % group_size == 0:
            batch["observations"] = repeat_rows(batch["observations"], group_size)
        if (
            rewards.ndim == 2
            and rewards.shape[1] == 1
            and np.shape(batch["actions"])[:1] == np.shape(batch["actions"])
        ):
            raise ValueError(f"rewards: got shape {rewards.shape}, needs {rewards.shape[:1]}, one for each action")
        check_leading("observations", batch["observations"], lead)
        check_leading("actions", batch["actions"], lead)
        check_finite("observations", batch["observations"])
        self._check_against_policy(batch, lead)
        return batch

    def evaluate_actions(
        self, model: nnx.Module, observations: Any, actions: Any, mask: Any = None, batch_axes: int = 1
    ) -> Evaluation:
        """`as_policy(model).evaluate`, for experience with one batch axis or with two, such as `(T, N)`."""
        if batch_axes == 1:
            return as_policy(model).evaluate(observations, actions, mask)
        lead = jax.tree.leaves(actions)[0].shape[:batch_axes]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[batch_axes:]), (observations, actions, mask))
        evaluation = as_policy(model).evaluate(*flat)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), evaluation)

    def batch_axes(self, batch: dict[str, Any]) -> int:
        """How many leading axes of observations and actions are batch."""
        return 1 if self._sequential else batch["rewards"].ndim

    @property
    def _sequential(self) -> bool:
        return getattr(self.model, "sequential", False)

    def _check_against_policy(self, batch: dict[str, Any], lead: tuple[int, ...]) -> None:
        """Everything that takes knowing what the policy makes of these observations and actions."""
        rewards, actions = batch["rewards"], batch["actions"]
        seen = self._specification(batch["observations"], actions, len(lead))
        scored = seen.log_probs.shape
        if rewards.shape not in (scored, scored[:1]):
            raise ValueError(f"rewards: got shape {rewards.shape}, needs {scored[:1]} or {scored}")
        if "mask" in batch or "lengths" in batch:
            if len(scored) == 1:
                check_shape("mask", batch.get("mask", batch.get("lengths")), scored)
                batch["mask"] = read_flags("mask", batch["mask"])
            else:
                batch["mask"] = read_mask(batch, scored)
            batch.pop("lengths", None)
        mask = batch.get("mask")
        check_finite("rewards", rewards, mask if mask is not None and mask.shape == rewards.shape else None)
        distribution = seen.distribution
        if hasattr(distribution, "check_actions"):
            flat = np.asarray(actions).reshape(-1, *np.shape(actions)[len(lead) :])
            distribution.check_actions(flat)
        check_finite("actions", actions)
        for name in ("log_probs", "ref_log_probs"):
            if name in batch:
                check_shape(name, batch[name], scored)
                check_finite(name, batch[name], mask)
                if (
                    hasattr(distribution, "logits")
                    and np.max(np.asarray(batch[name]), where=True if mask is None else mask, initial=-np.inf) > 1e-3
                ):
                    raise ValueError(f"{name}: got values above 0, needs logarithms of probabilities")
        for name in ("dones", "truncations"):
            if name in batch:
                check_shape(name, batch[name], rewards.shape)
                batch[name] = read_flags(name, batch[name])

    def _specification(self, observations: Any, actions: Any, batch_axes: int) -> Evaluation:
        """Shapes of what the policy says about such observations and actions; computed once for each shape."""
        leaves, treedef = jax.tree.flatten((observations, actions))
        key = (treedef, batch_axes, *((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves))
        if key not in self._specifications:

            def look(state, observations, actions):
                flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[batch_axes:]), (observations, actions))
                return as_policy(self.merge(state)[0]).evaluate(*flat)

            try:
                seen = jax.eval_shape(look, self.state, observations, actions)
            except (TypeError, ValueError, IndexError) as error:
                shapes = jax.tree.map(np.shape, (observations, actions))
                raise ValueError(
                    f"observations, actions: got shapes {shapes[0]} and {shapes[1]}, which the policy cannot read: "
                    f"{error}"
                ) from error
            if batch_axes > 1:
                lead = leaves[-1].shape[:batch_axes]
                seen = seen._replace(log_probs=jax.ShapeDtypeStruct(lead, seen.log_probs.dtype))
            self._specifications[key] = seen
        return self._specifications[key]

    def _sample(self, variables, step, observations, key):
        policy = as_policy(self.merge(TrainState(variables, step))[0])
        if hasattr(policy, "sample_masked"):
            actions, log_probs, mask = policy.sample_masked(observations, key)
        else:
            (actions, log_probs), mask = policy.sample(observations, key), None
        return actions, log_probs, mask, policy.evaluate(observations, actions, mask).values


def _parameters(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()
