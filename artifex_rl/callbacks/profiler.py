"""Where the time of a few steps goes: a trace that Perfetto and XProf show."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count
from artifex_rl.notices import warn_caller


@dataclasses.dataclass(frozen=True)
class ProfilingConfig:
    """Which steps `JAXProfiler` looks at.

    Args:
        log_dir: folder of the traces.
        start_step: the first step, from 0. Step 0 compiles: with it a profile shows little else.
        end_step: the one after the last. A few steps are enough, and more make a large file.

    Raises:
        ValueError: `end_step` is not after `start_step`.
    """

    log_dir: str | os.PathLike = "logs/profile"
    start_step: int = 10
    end_step: int = 20

    def __post_init__(self):
        check_count("end_step", self.end_step)
        if self.start_step != 0:
            check_count("start_step", self.start_step)
        if self.end_step <= self.start_step:
            raise ValueError(f"end_step: got {self.end_step}, needs more than start_step={self.start_step}")


class JAXProfiler(Callback):
    """Profiles steps `start_step` … `end_step` − 1 with JAX's profiler, once.

    A run that goes on beyond `start_step`, from a checkpoint, profiles as many steps from its second one on. Steps
    of one compiled call (`steps_per_call`) cannot be told apart: whole calls are profiled. What the device has begun
    is waited for before the trace ends. It also ends with the training, or with an error.

    JAX can run one profile at a time: where there is one already, a warning says that this one is left out. So it
    says if the trace cannot be written, and training goes on.

    Args:
        config: a `ProfilingConfig`. None: its defaults.

    Attributes:
        trace: path of the Perfetto trace, None before it is there.
        how_to_open: what to do with it; this is printed, too.
    """

    def __init__(self, config: ProfilingConfig | None = None):
        self.config = ProfilingConfig() if config is None else config
        self.trace: Path | None = None
        self.how_to_open = "nothing was profiled yet"
        self.done = False
        self._first: int | None = None  # step that the trace began with, while it runs
        self._end = self._last = -1

    # Hooks

    def on_train_begin(self, trainer: Any) -> None:
        self.on_train_end(trainer)  # of a loop by hand that was interrupted
        if self.config.start_step == 0 and trainer.step == 0 and not self.done:
            self._start(trainer, 0)

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        if self.done or (step + 1 < trainer.step and any(callback is self for callback in trainer.callbacks)):
            return  # within a call: the trace is at its end
        self._last = step
        if self._first is None and step + 1 >= self.config.start_step:
            self._start(trainer, step + 1)
        elif self._first is not None and step + 1 >= self._end:
            self._stop(trainer)

    def on_train_end(self, trainer: Any) -> None:
        if self._first is not None:
            self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]

    # How it is done

    def _start(self, trainer, first):
        jax.block_until_ready(trainer.state.variables)
        try:
            jax.profiler.start_trace(self.config.log_dir, create_perfetto_trace=True)
        except (RuntimeError, OSError) as error:
            self.done = True
            warn_caller(self, f"steps from {first} on are not profiled: {error}")
            return
        self._first, self._end = first, first + self.config.end_step - self.config.start_step

    def _stop(self, trainer):
        first, self._first, self.done = self._first, None, True
        jax.block_until_ready(trainer.state.variables)
        try:
            jax.profiler.stop_trace()
            traces = Path(self.config.log_dir).glob("plugins/profile/*/perfetto_trace.json.gz")
            self.trace = max(traces, key=lambda path: path.stat().st_mtime_ns)
        except (RuntimeError, OSError, ValueError) as error:
            _forget_profile()
            warn_caller(self, f"cannot write the profile of steps {first} to {self._last}: {error}. Training goes on")
            return
        self.how_to_open = (
            f"Profile of steps {first} to {self._last}: open https://ui.perfetto.dev and drag {self.trace} into it."
        )
        tqdm.write(self.how_to_open)  # above a bar, if there is one


def _forget_profile() -> None:
    """A trace that could not be written would keep JAX from ever beginning another."""
    state = getattr(getattr(jax, "_src", None), "profiler", None)
    state = getattr(state, "_profile_state", None)
    if state is not None:
        state.reset()
