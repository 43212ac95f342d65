"""Stop a policy that moves further than it should."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count, check_number, watch


class KLStop(Callback):
    """Stops when the KL divergence of the policy, averaged over the last `window` steps, is more than `target_kl`.

    Which divergence is a matter of the metric: "approx_kl" of PPO and GRPO is that of one update (the k3 estimate of
    KL(π_old ‖ π), Schulman, 2020, "Approximating KL divergence"), "kl_penalty" of GRPO that from the reference, so
    how far the run has come. Single steps are noisy, and estimates are below 0 at times: hence the window. NaN and
    infinity stop at once.

    Args:
        target_kl: nats, more than 0.
        window: steps, 1 or more. Before so many were seen nothing is stopped.
        monitor: name of the metric.

    Attributes:
        mean: of the window, None before it is full.
        reason: why it stopped the training, None if it did not; `stopped_step` is the step after which it did.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, target_kl: float, window: int = 10, monitor: str = "approx_kl"):
        self.target_kl = check_number("target_kl", target_kl)
        if self.target_kl <= 0:
            raise ValueError(f"target_kl: got {target_kl!r}, needs more than 0")
        self.window, self.monitor = check_count("window", window), monitor
        self._values: deque[float] = deque(maxlen=self.window)
        self.reason: str | None = None
        self.stopped_step = -1

    @property
    def mean(self) -> float | None:
        return sum(self._values) / self.window if len(self._values) == self.window else None

    def on_train_begin(self, trainer: Any) -> None:
        self.reason, self.stopped_step = None, -1

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        value = watch(self, metrics, self.monitor)
        if value is None or self.reason is not None:
            return
        if not math.isfinite(value):
            self._stop(trainer, step, f"{self.monitor} is {value}")
            return
        self._values.append(value)
        if self.mean is not None and self.mean > self.target_kl:
            over = f"over {self.window} steps" if self.window > 1 else "in a step"
            self._stop(trainer, step, f"{self.monitor} is {self.mean:.4g} {over}, more than {self.target_kl:.4g}")

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self._values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._values = deque(state["values"], maxlen=self.window)

    def _stop(self, trainer, step, reason):
        self.reason, self.stopped_step, trainer.should_stop = reason, step, True
