"""Live training: a panel to steer a trainer while it trains, and to ask "what if"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from artifex_rl.lab.chunks import make_chunks
from artifex_rl.lab.engine import Engine
from artifex_rl.lab.explorer import _digest
from artifex_rl.lab.live_figure import LiveFigure
from artifex_rl.lab.live_page import LivePage
from artifex_rl.lab.live_run import Run
from artifex_rl.lab.live_text import curves_of, title_of
from artifex_rl.lab.sliders import make_sliders, read_setting
from artifex_rl.trainer import Trainer

_open: list[tuple[Any, LiveTraining]] = []


class LiveTraining(LivePage):
    """A panel that trains: start, pause, one step, restart, reset, speed, a slider for each number, and curves.

    The training runs in a thread of its own, in compiled chunks of a few hundredths of a second, so that other cells
    run meanwhile. A slider's move counts from the next chunk on and compiles nothing; the curves are marked there.
    Whenever the training rests, the trainer's model, optimizer and config are those of the panel, and what is
    assigned to them then counts.

    Args:
        trainer: any `artifex_rl` trainer.
        data: where experience comes from, one of five. A mapping of arrays is a batch, as for `Trainer.fit`, or with
            `batch_size` a dataset. A function `data(model, key)` makes the prepared batch of each step, pure, as for
            `sweep`. An `Environment` lets the policy of now act. A mapping with "observations" and a `reward_fn`
            lets Python score samples. A list of batches is taken in turns.
        batch_size: rows of a batch, with a dataset.
        reward_fn: as for `train_step(batch, reward_fn)`.
        sliders: which numbers get one: names of numbers of the config (floats, and PPO's `num_epochs`), settings of
            the model (`noise_level` of a `FlowPolicy`, `eta` of a `DiffusionPolicy`), "learning_rate" (if the
            optimizer was made with `optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`), `Slider`s or
            `Control`s. None: all of them.
        curves: what is drawn: a mapping from the title of each small figure to a metric or to several, or a list of
            metrics. None: a choice that suits the trainer.
        show: `show(model, key)` turns the current model into something to look at: a text, lines of text, an image
            `(H, W)` or `(H, W, 3)`, images `(B, H, W)` or `(B, H, W, 3)`, or a matplotlib `Figure`; or a pair of that
            and a sentence that describes it.
        show_every: steps between two calls of `show`, at least; less often if it takes long.
        max_steps: where the training ends by itself.
        title: heading of the panel.

    Raises:
        TypeError: `trainer` or `data` is of the wrong kind.
        ValueError: the data does not fit the trainer, or an argument is not what it needs to be; it is named.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: Any,
        *,
        batch_size: int | None = None,
        reward_fn: Callable[..., Any] | None = None,
        sliders: Sequence[Any] | None = None,
        curves: Mapping[str, Any] | Sequence[str] | None = None,
        show: Callable[[Any, jax.Array], Any] | None = None,
        show_every: int = 1,
        max_steps: int = 100_000,
        title: str = "",
    ):
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainer: got {type(trainer).__name__}, needs an artifex_rl trainer")
        if trainer.mesh is not None:
            raise ValueError("trainer: got one with a mesh, needs none: a panel trains on one device")
        for name, value in (("show_every", show_every), ("max_steps", max_steps)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
                raise ValueError(f"{name}: got {value!r}, needs an integer of at least 1")
        made = make_sliders(trainer, sliders, read_setting(trainer))
        taken = [slider.name for slider in made if hasattr(type(self), slider.name)]
        if taken:
            raise ValueError(f"sliders: got {taken}, which a panel already has as attributes")
        chunks = make_chunks(trainer, data, batch_size, reward_fn)
        figure = LiveFigure(curves_of(trainer, chunks.names, curves))
        _close_others(trainer)
        engine = Engine(trainer, chunks, max_steps, self._redraw)
        super().__init__(engine, figure, made, show, show_every, title or title_of(trainer))
        _open.append((_cell(), self))

    # What a hand does, from code ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Train on in the background; nothing if it trains already."""
        self._engine.raise_pending()
        self._engine.start()

    def pause(self) -> None:
        """Stop now, with the state after the last finished chunk."""
        self._engine.raise_pending()
        self._engine.pause()

    def step(self) -> None:
        """Train one step, here and now."""
        self.run(1)

    def run(self, steps: int) -> None:
        """Train for some steps, here and now, by the code that trains in the background.

        Raises:
            ValueError: `steps` is not a positive integer.
            Exception: whatever ended the training; the panel shows it.
        """
        self._engine.raise_pending()
        if isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 1:
            raise ValueError(f"steps: got {steps!r}, needs an integer of at least 1")
        self._error = ""
        self._engine.run(int(steps))

    def set(self, **changes: float) -> None:
        """Move numbers, as a hand does with sliders: for the last fork, if there is one, else for the run.

        Raises:
            ValueError: there is no such number, or its value is not possible. Nothing has moved then.
        """
        self._engine.raise_pending()
        self._engine.set(changes)
        self._put_sliders()

    def fork(self, **changes: float) -> Run:
        """What if? A second run from the state of now, with other numbers, which the sliders then belong to. Both
        train on by the same steps and the same random keys. At most two forks.

        Raises:
            ValueError: as for `set`, or there are two forks already. Nothing has changed then.
        """
        self._engine.raise_pending()
        run = self._engine.fork(changes)
        self._put_sliders()
        self._refresh()
        return run

    def drop(self) -> None:
        """Forget the last fork."""
        self._engine.raise_pending()
        self._engine.drop()
        self._put_sliders()
        self._refresh()

    def reset(self, keep_setting: bool = False) -> None:
        """Back to the first state, to the bit, with nothing seen; the numbers too, unless they are to be kept."""
        self._engine.raise_pending()
        self._reset(keep_setting)

    def close(self) -> None:
        """Stop for good, wait for the thread, and take the panel away."""
        if getattr(self, "_engine", None) is not None:
            self._engine.close()
        _open[:] = [entry for entry in _open if entry[1] is not self]
        super().close()

    # What there is to see -----------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it trains. Once it does not, what ended it is shown: the last word of the thread is part of it."""
        with self._engine.lock:
            return self._engine.running

    @property
    def steps(self) -> int:
        """How many steps the panel has trained, since the last reset."""
        return self._engine.steps

    @property
    def setting(self) -> dict[str, float]:
        """The numbers that the sliders' run trains with from now on."""
        return dict(self._engine.runs[-1].wanted)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The run and its forks; each has `history.series()`, `marks`, `setting` and `state`."""
        return tuple(self._engine.runs)

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric of the run, one number a step."""
        with self._engine.lock:
            return self._engine.runs[0].history.series()

    def model(self, run: int = 0) -> Any:
        """The model of now, of the run or of a fork: a new object, whole also while it trains."""
        return self._engine.trainer.merge(self._engine.runs[run].state)[0]

    @property
    def compilations(self) -> int:
        """How often the training loop was compiled."""
        return self._engine.chunks.compilations

    def fingerprint(self) -> str:
        """Rounded digest of what is drawn: steps, numbers, marks, and of each metric that is drawn what
        `Explorer.fingerprint` says of a curve. Another processor may round a long training differently."""
        lines = []
        with self._engine.lock:
            for run in self._engine.runs:
                numbers = ", ".join(f"{name}={value:g}" for name, value in run.wanted.items())
                marks = "".join(f"; {mark.text} at step {mark.step}" for mark in run.marks)
                lines.append(f"{run.history.steps} steps, {numbers}{marks}")
                series = run.history.series()
                drawn = dict.fromkeys(m for metrics in self._figure.groups.values() for m in metrics if m in series)
                lines += [f"{name}: {_digest(series[name])}" for name in drawn]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"LiveTraining({type(self._engine.trainer).__name__}, {self.steps} steps)"


def _close_others(trainer: Trainer) -> None:
    """Panels of this trainer, and those that an earlier run of this cell has made, are closed: a trainer has one hand
    at the wheel, and a cell that is run again leaves nothing behind that still trains."""
    cell, run = _cell()
    for (its_cell, its_run), other in list(_open):
        if other._engine.trainer is trainer or (cell is not None and its_cell == cell and its_run != run):
            other.close()


def _cell() -> tuple[Any, Any]:
    """Which notebook cell runs now, and which time; None outside of JupyterLab."""
    try:
        from IPython import get_ipython

        shell = get_ipython()
        return shell.kernel.get_parent()["metadata"].get("cellId"), shell.execution_count
    except (ImportError, AttributeError, KeyError):
        return None, None
