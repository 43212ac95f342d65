"""What a run has seen, in memory and in a file that a kill, a full disk or another process does not spoil."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from artifex_rl.callbacks.logger import MetricLogger
from artifex_rl.callbacks.plots import plot_series
from artifex_rl.callbacks.row_file import RowFile
from artifex_rl.notices import warn_caller


class HistoryCallback(MetricLogger):
    """Keeps every metric, and writes it to a file of lines of JSON or of comma-separated values.

    Each row is in the file when its step is done, as one line. If training is killed and goes on from a checkpoint
    with `resume=True`, the rows of the steps that are done again are taken out first: the file is in the end that of
    a run that was never killed, byte for byte. A last line that was not finished is repaired.

    Args:
        path: `run.jsonl` or `run.csv`. None: in memory only.
        every_n_steps: which steps; validations are always written, as rows of their own.
        resume: go on with a file that is there: its rows are read, and those from where the run begins on replaced.
            False: it must hold earlier steps only.

    Raises:
        ValueError: an argument is out of its range, or the file holds something else.
        FileExistsError: when training begins, with `resume=False`: the file has rows of steps that are to come.
        RuntimeError: when training begins: another run is writing the file.
    """

    def __init__(self, path: str | os.PathLike | None = None, every_n_steps: int = 1, resume: bool = False):
        super().__init__(every_n_steps)
        self.resume = resume
        self._file = None if path is None else RowFile(path)
        self._waits = False  # whether some rows had to
        self._found = -1  # last step that was in the file before us
        self._columns: dict[str, tuple[array, array]] = {}

    def series(self) -> dict[str, np.ndarray]:
        """Every metric, one number for each step at which it was seen; see `steps`."""
        return {name: np.array(values) for name, (_, values) in self._columns.items()}

    def steps(self, name: str = "loss") -> np.ndarray:
        """The steps of the numbers that `series()[name]` holds."""
        return np.array(self._columns[name][0])

    def plot(self, names: Sequence[str] | None = None) -> Any:
        """A matplotlib Figure: each metric over the steps, and its running average where there are many.

        Args:
            names: which; a metric and its "val_" share axes. None: all.

        Raises:
            ValueError: there is no such metric.
        """
        return plot_series({name: (self.steps(name), y) for name, y in self.series().items()}, names)

    # Hooks

    def on_train_begin(self, trainer: Any) -> None:
        super().on_train_begin(trainer)
        if self._file is None:
            return
        rows = self._file.open()
        if not rows:
            return
        self._found = self.last_step = rows[-1][0]
        self._columns = {}
        for step, metrics in rows:
            self._remember(step, metrics)
        if not self.resume and trainer.step <= self._found:
            self._file.close()
            self._refuse(trainer.step)

    def open(self, trainer: Any, step: int) -> None: ...

    def write(self, step: int, metrics: dict[str, float]) -> None:
        self._remember(step, metrics)
        if self._file is None:
            return
        try:
            self._file.append(step, metrics)
        except OSError as error:
            if not self._waits:
                warn_caller(self, f"cannot write to {self._file.path}: {error}. Training goes on, rows wait")
            self._waits = True

    def close(self, failed: bool) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            warn_caller(self, f"{self._file.path} lacks the last rows, which series() has: {error}")

    def rewind(self, step: int) -> bool:
        if not self.resume and step <= self._found:
            self._refuse(step)
        if self._file is not None:
            self._file.cut(step)
        for name, (steps, values) in list(self._columns.items()):
            first = bisect_left(steps, step)
            del steps[first:], values[first:]
            if not steps:
                del self._columns[name]
        return True

    def state_dict(self) -> dict[str, Any]:
        return {}  # the file is the state

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def _remember(self, step, metrics):
        for name, value in metrics.items():
            steps, values = self._columns.setdefault(name, (array("q"), array("d")))
            steps.append(step)
            values.append(value)

    def _refuse(self, step):
        raise FileExistsError(
            f"path: {self._file.path} has steps up to {self._found}, and step {step} is next; needs a new path, or "
            f"resume=True to replace what it has from there on"
        )
