"""What the callbacks that write metrics down share: which step it is, whose turn it is, and what if writing fails."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count
from artifex_rl.notices import warn_caller


class MetricLogger(Callback):
    """Writes the metrics of every `every_n_steps`th step, and those of every validation.

    Steps go upwards, whatever the loop counts. A run that was restored writes over what it repeats (`rewind`), or
    leaves that out. A loop by hand that counts from 0 again goes on where the trainer stands.

    What cannot be written is said once, in a warning, and training goes on.

    A subclass writes `open`, `write` and `close`.

    Args:
        every_n_steps: 1 or more.
    """

    #: What may go wrong with writing, and does not end the training.
    survives: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(self, every_n_steps: int = 1):
        self.every_n_steps = check_count("every_n_steps", every_n_steps)
        self.last_step = -1  # that was seen
        self._written = -1
        self._offset: int | None = None  # from the loop's count to ours; None until a run has made a step
        self._broken = self._failed = False

    # What a subclass writes

    @abc.abstractmethod
    def open(self, trainer: Any, step: int) -> None:
        """Get ready: `step` is the first that may be written. Called at the first step of every run."""

    @abc.abstractmethod
    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row. Steps go upwards; the metrics of a validation have the same step as those before."""

    @abc.abstractmethod
    def close(self, failed: bool) -> None:
        """Nothing more comes in this run. Called whether there was a step or not, and whatever `open` raised."""

    def rewind(self, step: int) -> bool:
        """Forget what was written of `step` and later. False if that cannot be done: it is then not written again."""
        return False

    # Hooks

    def on_train_begin(self, trainer: Any) -> None:
        if self._offset is not None:  # a loop by hand was interrupted, and nobody has been told
            self._try("close", self.close, True, always=True)
        self._offset, self._broken, self._failed = None, False, False

    def on_train_batch_end(self, trainer: Any, metrics: Mapping[str, Any], step: int) -> None:
        first = self._offset is None
        if first:
            self._offset = self._align(trainer, step)
        step += self._offset
        if first:
            if step <= self.last_step and self.rewind(step):
                self._written = step - 1
            self._try("open", self.open, trainer, step)
        self.last_step = step
        if step % self.every_n_steps == 0:
            self._write(step, metrics)

    def on_validation_end(self, trainer: Any, metrics: Mapping[str, Any], step: int) -> None:
        if self._offset is not None:
            self._write(step + self._offset, metrics, again=True)

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self._failed = True

    def on_train_end(self, trainer: Any) -> None:
        self._try("close", self.close, self._failed, always=True)
        self._offset = None

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step, "written": self._written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_step, self._written = state["last_step"], state["written"]

    # How it is done

    def _align(self, trainer: Any, step: int) -> int:
        """What to add to the loop's count: `fit` counts as the trainer does, a loop by hand may begin at 0 again."""
        if step > self.last_step or any(callback is self for callback in trainer.callbacks):
            return 0
        return trainer.step - 1 - step

    def _write(self, step, metrics, again=False):
        if self._broken or step < self._written or (step == self._written and not again):
            return
        self._written = step
        self._try("write", self.write, step, as_floats(metrics))

    def _try(self, what, function, *arguments, always=False):
        if self._broken and not always:
            return
        try:
            function(*arguments)
        except self.survives as error:
            if not self._broken:
                warn_caller(self, f"cannot {what}: {error}. Training goes on, and this callback writes nothing more")
            self._broken = True


def as_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats; a ValueError names what is no scalar."""
    try:
        return {name: float(value) for name, value in metrics.items()}
    except (TypeError, ValueError):
        for name, value in metrics.items():
            try:
                float(value)
            except (TypeError, ValueError) as error:
                shape = getattr(value, "shape", None)
                got = type(value).__name__ if shape is None else f"shape {tuple(shape)}"
                raise ValueError(f"metrics[{name!r}]: got {got}, needs a number") from error
        raise
