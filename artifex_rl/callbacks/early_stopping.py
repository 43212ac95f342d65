"""Stop a training that no longer improves, or that has gone wrong."""

from __future__ import annotations

import math
from typing import Any

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count, check_number, watch
from artifex_rl.notices import warn_caller


class EarlyStopping(Callback):
    """Stops when a metric has not improved for `patience` of its values, has diverged, or is no number.

    The metric of a validation ("val_loss") has a value for each validation, others one for each step. An improvement
    is one by more than `min_delta` on the best value so far (Prechelt, 1998, "Early Stopping - But When?").

    A run in pieces, or one that goes on from a checkpoint, is one run: nothing is forgotten in between.

    Args:
        monitor: name of the metric.
        mode: "min" if lower is better, "max" if higher is.
        patience: values without an improvement after which to stop, 1 or more.
        min_delta: 0 or more.
        divergence_threshold: stop at once at a value that is worse than this. None: at none.
        check_finite: stop at once at NaN or infinity. If not, they are values without an improvement.

    Attributes:
        best: the best value, None before the first; `best_step` is the step that it is of.
        reason: why it stopped the training, None if it did not; `stopped_step` is the step after which it did.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "min",
        patience: int = 10,
        min_delta: float = 0.0,
        divergence_threshold: float | None = None,
        check_finite: bool = True,
    ):
        if mode not in ("min", "max"):
            raise ValueError(f"mode: got {mode!r}, needs 'min' or 'max'")
        self.monitor, self.mode, self.check_finite = monitor, mode, check_finite
        self.patience = check_count("patience", patience)
        self.min_delta = check_number("min_delta", min_delta, low=0)
        self.divergence_threshold = divergence_threshold
        if divergence_threshold is not None:
            self.divergence_threshold = check_number("divergence_threshold", divergence_threshold)
        self.best: float | None = None
        self.best_step = self.stopped_step = -1
        self.waited = 0
        self.reason: str | None = None
        self._seen = False

    def on_train_begin(self, trainer: Any) -> None:
        self._seen, self.reason, self.stopped_step = False, None, -1

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        if not self.monitor.startswith("val_"):
            self._look(trainer, metrics, step)

    def on_validation_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        if self.monitor.startswith("val_"):
            self._look(trainer, metrics, step)

    def on_train_end(self, trainer: Any) -> None:
        if not self._seen and trainer.step and self.monitor.startswith("val_"):
            warn_caller(self, f"{self.monitor}: there was no validation, needs fit(..., validation=...)")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]

    def _look(self, trainer, metrics, step):
        self._seen = True
        value = watch(self, metrics, self.monitor)
        if value is None or self.reason is not None:
            return
        sign = 1 if self.mode == "min" else -1
        if not math.isfinite(value) and self.check_finite:
            self._stop(trainer, step, f"{self.monitor} is {value}")
        elif self.divergence_threshold is not None and not sign * value <= sign * self.divergence_threshold:
            self._stop(trainer, step, f"{self.monitor} is {value:.4g}, worse than {self.divergence_threshold:.4g}")
        elif math.isfinite(value) and (self.best is None or sign * (self.best - value) > self.min_delta):
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
            if self.waited >= self.patience:
                best = "no number so far" if self.best is None else f"{self.best:.4g} at step {self.best_step}"
                self._stop(trainer, step, f"{self.monitor} has not improved for {self.waited} values; best: {best}")

    def _stop(self, trainer, step, reason):
        self.reason, self.stopped_step, trainer.should_stop = reason, step, True
