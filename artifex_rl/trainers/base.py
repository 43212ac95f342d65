"""What the trainers of generative models share: batches of data with labels, and samples of what was trained."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from artifex_rl.rl.batches import check_finite, read_batch
from artifex_rl.rl.forms import KnownForms, form
from artifex_rl.trainer import Trainer, TrainState


class GenerativeTrainer(Trainer):
    """A trainer whose batches hold "data" `(B, ...)`, and "labels" `(B,)` where the model is told a class.

    "data" may also be called "images", "x" or "inputs", and "labels" "classes" or "y"; `ALIASES` lists all names.
    Subclasses write `compute_loss`, and `draw` for `sample`.
    """

    required: ClassVar[tuple[str, ...]] = ("data",)
    optional: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer, config: Any = None, **options: Any):
        super().__init__(model, optimizer, config, **options)
        self._forms = KnownForms()
        self._readable: set[Any] = set()  # forms that the model was seen to read
        self._compiled_draw = jax.jit(self._draw, static_argnames=("num_samples", "options"))
        self._compiled_call = jax.jit(self._call, static_argnames="method")

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The batch under canonical names, its shapes checked."""
        known = self._forms.read(batch)
        if known is not None:
            return known
        checked = read_batch(batch, self.required, self.optional)
        self.check_batch(checked)
        self._forms.learn(batch, checked)
        return checked

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes and types that do not fit together; the numbers are checked in `validate`."""
        data = batch["data"]
        if np.ndim(data) < 2 or data.dtype.kind != "f":
            raise ValueError(f"data: got {data.dtype} of shape {np.shape(data)}, needs floats (B, ...)")
        labels = batch.get("labels", np.zeros(len(data), np.int32))
        if labels.dtype.kind not in "iu" or np.shape(labels) != np.shape(data)[:1]:
            raise ValueError(
                f"labels: got {labels.dtype} of shape {np.shape(labels)}, needs integers ({len(data)},), one for "
                f"each of data"
            )

    def check_readable(self, batch: dict[str, Any]) -> None:
        """ValueError where the model cannot read a batch of these shapes: its loss is traced, nothing is computed."""
        known = form(batch)
        if known in self._readable:
            return

        def trace(state, batch, key):
            return self.compute_loss(self.merge(state)[0], batch, key)

        try:
            jax.eval_shape(trace, self.state, batch, self.key)
        except (TypeError, ValueError) as error:
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in batch.items())
            raise ValueError(f"batch: got {shapes}, which the model cannot read: {error}") from error
        if known is not None:
            self._readable.add(known)

    def validate(self, batch: dict[str, Any]) -> None:
        """ValueError for NaN or infinity, and for labels that `check_labels` refuses."""
        for name, value in batch.items():
            check_finite(name, value)
        if "labels" in batch:
            self.check_labels(np.asarray(batch["labels"]))

    def check_labels(self, labels: np.ndarray) -> None:
        """ValueError for labels, of a batch or to sample, that the model does not know."""

    def sample(self, num_samples: int, key: Array, labels: Any = None, **options: Any) -> Array:
        """Draw from the model as it is now, or from the average of its weights where the trainer keeps one.

        Args:
            num_samples: how many; each number compiles once.
            key: a JAX random key.
            labels: `(num_samples,)` integers, or one for all, for a model that is told a class.
            options: what the subclass's `draw` takes beside these; each setting compiles once.

        Raises:
            ValueError: an argument is out of its range.
        """
        if isinstance(num_samples, bool) or not hasattr(num_samples, "__index__") or num_samples < 1:
            raise ValueError(f"num_samples: got {num_samples!r}, needs an integer of at least 1")
        if labels is not None:
            labels = np.asarray(labels)
            if labels.dtype.kind not in "iu" or labels.shape not in ((), (num_samples,)):
                raise ValueError(
                    f"labels: got {labels.dtype} of shape {labels.shape}, needs integers ({num_samples},) or one"
                )
            self.check_labels(labels)
            labels = np.broadcast_to(labels, (num_samples,)).astype(np.int32)
        numbers = {name: value for name, value in options.items() if isinstance(value, float)}
        fixed = tuple((name, value) for name, value in sorted(options.items()) if name not in numbers)
        return self._compiled_draw(*self.state, key, self._device_config, labels, numbers, int(num_samples), fixed)

    @abc.abstractmethod
    def draw(self, parts: tuple[Any, ...], num_samples: int, key: Array, labels: Any = None, **options: Any) -> Array:
        """Samples from `evaluation_parts`; pure, and compiled by `sample`.

        Floats among the options are traced; all else is static.
        """

    def call(self, method: str, *arguments: Any) -> Any:
        """A method of the trainer, called with `evaluation_parts` of now and the arguments; compiled once a shape."""
        return self._compiled_call(*self.state, self._device_config, arguments, method=method)

    def _draw(self, variables, step, key, config, labels, numbers, num_samples, options):
        parts = self.evaluation_parts(TrainState(variables, step))
        return self._with_config(config).draw(parts, num_samples, key, labels, **numbers, **dict(options))

    def _call(self, variables, step, config, arguments, method):
        parts = self.evaluation_parts(TrainState(variables, step))
        return getattr(self._with_config(config), method)(parts, *arguments)
