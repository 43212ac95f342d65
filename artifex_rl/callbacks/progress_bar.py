"""How far training is, how fast, and how well: a bar in a terminal, one line in a notebook."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count

#: Share of the time that drawing may take, and the seconds between two drawings, or lines of a log, at least.
SHARE, PAUSE, LOG_PAUSE = 0.01, 0.1, 60.0
#: What is shown unless told: those of these that there are.
SHOWN = ("loss", "mean_reward", "reward_margin", "approx_kl", "entropy", "val_loss")


class ProgressBarCallback(Callback):
    """A bar with the steps done, the time left, the rate and a few metrics.

    In a terminal it is tqdm's. In a notebook it is one line, replaced as training goes on; what stays says what every
    run says, "500 of 500 steps", so that a saved notebook is clean and a test of it may compare the line. Elsewhere,
    as in a log file, it is a line a minute and one at the end. `summary()` has the figures afterwards.

    Drawing takes at most 1 % of the time that has passed, and the hook itself less than a microsecond a step.

    Args:
        metrics: names of those to show. None: a few of those that there are.
        total: steps in all, for a loop written by hand; `fit` says so itself.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, metrics: Sequence[str] | None = None, total: int | None = None):
        if isinstance(metrics, str):
            raise ValueError(f"metrics: got {metrics!r}, needs a list of names")
        self.metrics = SHOWN if metrics is None else tuple(metrics)
        self.total = None if total is None else check_count("total", total)
        self._view: Any = None
        self._clear()

    def summary(self) -> str:
        """The run so far, or the last one, in a sentence: steps, time, rate, metrics."""
        rate = f" ({self._rate():.3g} steps a second)" if self._rate() else ""
        return ", ".join([f"{self._standing()} in {self._elapsed():.1f} s{rate}", *self._texts(" ")])

    # Hooks

    def on_train_begin(self, trainer: Any) -> None:
        self.on_train_end(trainer)  # of a loop by hand that was interrupted
        self._clear()
        self._total = self.total if trainer.end_step is None else trainer.end_step
        self._view = _Notebook() if _in_notebook() else _Terminal() if _in_terminal() else _Log()
        self._begun = self._now = time.perf_counter()
        self._next = self._begun + self._view.pause

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first, self._first_end = step, now
        self._step, self._latest, self._now = step, metrics, now
        if now >= self._next:
            self._draw()

    def on_validation_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        self._validated = metrics

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self._error = error

    def on_train_end(self, trainer: Any) -> None:
        if self._view is None:
            return
        self._now = time.perf_counter()
        self._view.close(self._line(), self._standing(), self.summary())
        self._view = None

    # How it is done

    def _clear(self) -> None:
        self._latest: dict[str, float] = {}
        self._validated: dict[str, float] = {}
        self._first = self._total = self._error = None
        self._step, self._cost = -1, 0.0
        self._begun = self._now = self._first_end = 0.0

    def _draw(self) -> None:
        self._view.draw(self._line())
        after = time.perf_counter()
        self._cost += after - self._now
        # The time of both goes on: what drawing has cost so far is then 1 % of all that has passed.
        self._next = max(after + self._view.pause, self._begun + self._cost / SHARE)

    def _elapsed(self) -> float:
        return self._now - self._begun

    def _rate(self) -> float | None:
        """Steps a second after the first one, which compiles."""
        seconds = self._now - self._first_end
        return (self._step - self._first) / seconds if self._first not in (None, self._step) and seconds > 0 else None

    def _texts(self, between: str) -> list[str]:
        there = {**self._latest, **self._validated}
        return [f"{name}{between}{float(there[name]):.4g}" for name in self.metrics if name in there]

    def _standing(self) -> str:
        done = self._step + 1
        known = self._total is not None and done <= self._total
        text = f"{done} of {self._total} steps" if known else f"{done} steps"
        if self._error is not None:
            return f"{type(self._error).__name__} after {text}"
        return f"stopped after {text}" if known and done < self._total else text

    def _line(self) -> str:
        from tqdm import tqdm

        return tqdm.format_meter(
            self._step + 1,
            self._total,
            self._elapsed(),
            ncols=self._view.columns(),
            unit="step",
            rate=self._rate(),
            postfix=", ".join(self._texts("=")),
            initial=self._first or 0,
        )


class _Notebook:
    """An output that is replaced, empty in the beginning and in the end, and one with the last line.

    nbval compares what an output was first: a line that changes must not be an output that stays.
    """

    pause = PAUSE

    def __init__(self):
        from IPython.display import display

        self._display, self._handle = display, display({}, raw=True, display_id=True)

    def columns(self) -> int | None:
        return None

    def draw(self, line: str) -> None:
        self._handle.update({"text/plain": line}, raw=True)

    def close(self, line: str, standing: str, summary: str) -> None:
        self._handle.update({}, raw=True)
        self._display({"text/plain": standing}, raw=True)


class _Terminal:
    """The last line of a terminal, replaced; what others print there in the meantime stays whole."""

    pause = PAUSE

    def __init__(self):
        from tqdm import tqdm

        self._bar = tqdm(total=0, bar_format="{desc}", leave=True, file=sys.stderr)

    def columns(self) -> int | None:
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or None
        except (OSError, ValueError):
            return None

    def draw(self, line: str) -> None:
        self._bar.set_description_str(line)

    def close(self, line: str, standing: str, summary: str) -> None:
        self.draw(line)
        self._bar.close()


class _Log:
    """Lines."""

    pause = LOG_PAUSE

    def columns(self) -> int | None:
        return None

    def draw(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def close(self, line: str, standing: str, summary: str) -> None:
        self.draw(summary)


def _in_notebook() -> bool:
    """Whether a kernel runs this: what is displayed then goes into a page."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def _in_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
