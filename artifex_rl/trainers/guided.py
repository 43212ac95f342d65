"""What diffusion and flow share: an average of the weights, and labels, dropped in training, that guide later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from artifex_rl.diffusion import drop_labels, guided
from artifex_rl.trainer import Metrics, TrainState
from artifex_rl.trainers.average import follow, new_average
from artifex_rl.trainers.base import GenerativeTrainer


class GuidedTrainer(GenerativeTrainer):
    """A trainer of a network that turns noise into data over many steps, told a time and perhaps a class.

    The model is called `model(x, times, labels)` with x `(B, *shape)`, times `(B,)` and labels `(B,)` or None, and
    answers in the shape of x. One that is told classes says how many in `num_classes`, K; labels are 0 … K − 1, and
    K or None stands for "no label". `artifex_rl.models.Denoiser` is such. The config has `ema_decay` and
    `label_dropout`.

    Args:
        shape: of one sample, to draw. None: the model's `shape`.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: Any = None,
        *,
        shape: Sequence[int] | None = None,
        **options: Any,
    ):
        companions = (new_average(model),) if isinstance(model, nnx.Module) else ()
        super().__init__(model, optimizer, config, companions=companions, **options)
        shape = getattr(model, "shape", None) if shape is None else shape
        self.shape = None if shape is None else tuple(shape)

    @property
    def average(self) -> nnx.Module:
        """The model with the average of its weights, which `sample` draws from and `evaluate` measures."""
        return self.companions[0]

    @property
    def num_classes(self) -> int | None:
        """K of the model; None where it is told no class."""
        return getattr(self.model, "num_classes", None)

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes that the model cannot read, and for labels that it is not told."""
        super().check_batch(batch)
        shape = np.shape(batch["data"])
        if self.shape is not None and shape[1:] != self.shape:
            raise ValueError(f"data: got shape {shape}, needs {('B', *self.shape)}".replace("'", ""))
        if "labels" in batch and self.num_classes is None:
            raise ValueError(
                f"labels: got {np.shape(batch['labels'])}, needs none: {type(self.model).__name__} has no num_classes"
            )
        if (shape, batch["data"].dtype) not in self._readable:
            self._check_readable(shape, batch["data"].dtype)
            self._readable.add((shape, batch["data"].dtype))

    def _check_readable(self, shape: tuple[int, ...], dtype: Any) -> None:
        x, times = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[:1], dtype)
        try:
            answer = jax.eval_shape(lambda state, x, t: self.merge(state)[0](x, t, None), self.state, x, times)
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: got shape {shape}, which the model cannot read: {error}") from error
        if answer.shape != shape:
            raise ValueError(f"model: answers {answer.shape} to data {shape}, needs the same shape")

    def check_labels(self, labels: np.ndarray) -> None:
        """ValueError for labels that the model does not know."""
        if self.num_classes is None:
            raise ValueError(f"labels: needs None: {type(self.model).__name__} has no num_classes")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(f"labels: got {labels.min()} to {labels.max()}, needs 0 to {self.num_classes - 1}")

    def drop_labels(self, batch: dict[str, Any], key: Array) -> Int[Array, "B"] | None:
        """The labels of a batch, each of them left out with probability `label_dropout`; None where it has none."""
        if "labels" not in batch:
            return None
        return drop_labels(jnp.asarray(batch["labels"]), self.num_classes, self.config.label_dropout, key)

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """A gradient step; then the average follows."""
        state, metrics = self.gradient_step(state, batch, key)
        model, optimizer, average = self.merge(state)
        follow(average, model, self.config.ema_decay, state.step)
        return self.split(model, optimizer, average, step=state.step), metrics

    def evaluation_loss(self, parts: tuple[Any, ...], batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The loss of the average, told all labels."""
        config = dataclasses.replace(self.config, label_dropout=0.0)
        return self._with_config(config).compute_loss(parts[2], batch, key)

    def sample(
        self, num_samples: int, key: Array, labels: Any = None, *, guidance: ArrayLike = 1.0, **options: Any
    ) -> Float[Array, "B *D"]:
        """Draw from the average of the weights.

        Args:
            num_samples: how many; each number compiles once.
            key: a JAX random key.
            labels: `(num_samples,)` classes, or one for all. None: any class.
            guidance: weight of the labels, finite; see `guide`. 1 asks the model once a step, others twice.
            options: see `draw`.

        Raises:
            ValueError: an argument is out of its range.
        """
        guidance = float(guidance)
        if not math.isfinite(guidance):
            raise ValueError(f"guidance: got {guidance}, needs a finite number")
        if self.shape is None:
            raise ValueError(f"shape: got None, needs that of a sample: {type(self.model).__name__} does not say it")
        twice = guidance != 1 and labels is not None
        return super().sample(num_samples, key, labels, guidance=guidance, twice=twice, **options)

    def guide(self, parts: tuple[Any, ...], guidance: ArrayLike, twice: bool) -> Any:
        """The average of `evaluation_parts`, guided if it is to be asked twice."""
        return guided(parts[2], guidance) if twice else parts[2]
