"""Live training: a panel to steer a trainer while it trains, and to ask "what if"."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import traitlets

from artifex_rl.lab.chunks import make_chunks
from artifex_rl.lab.engine import Engine, Run
from artifex_rl.lab.explorer import EMBED, _digest
from artifex_rl.lab.frames import UNIT
from artifex_rl.lab.live_figure import LiveFigure
from artifex_rl.lab.live_text import curves_of, describe, legend, title_of
from artifex_rl.lab.page import fragment
from artifex_rl.lab.sliders import check_setting, make_sliders, read_setting
from artifex_rl.lab.widget import LabWidget
from artifex_rl.samples import as_sample
from artifex_rl.trainer import Trainer

HERE = Path(__file__).parent
#: Seconds between two frames, at least, on average: a frame leaves when a chunk has begun, and chunks keep no time.
FRAME_SECONDS = 1 / 28
#: Frames that may be on their way to a page that has not answered, and seconds after which one is sent anyway. The
#: page answers one of five (`ANSWERED` in live.js), which does not make a kernel wait that is a fifth of a second away.
IN_FLIGHT, PATIENCE = 12, 0.5
#: Share of the time that `show` may take.
SHOW_SHARE = 0.04

_open: list[tuple[Any, LiveTraining]] = []


class LiveKnob(traitlets.Float):
    """A number of the trainer as a synced trait: what its config refuses is refused."""

    def __init__(self, name: str, value: float):
        super().__init__(value)
        self._name = name
        self.tag(sync=True)

    def validate(self, obj, value):
        value = super().validate(obj, value)
        try:
            check_setting(obj._trainer.config, obj.setting, {self._name: value}, obj._engine.places)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return value


class LiveTraining(LabWidget):
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
        sliders: which numbers get one: names of floats of the config, settings of the model (`noise_level` of a
            `FlowPolicy`, `eta` of a `DiffusionPolicy`), "learning_rate" (if the optimizer was made with
            `optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`), `Slider`s or `Control`s. None: all of them.
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

    _esm = (HERE / "drawing.js").read_text("utf-8") + (HERE / "live.js").read_text("utf-8")
    _css = (HERE / "explorer.css").read_text("utf-8") + (HERE / "live.css").read_text("utf-8")

    _layout = traitlets.Dict().tag(sync=True)
    _frame = traitlets.Dict().tag(sync=True)
    _sample = traitlets.Dict().tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)
    speed = traitlets.Float(min=0, help="Steps a second; 0 is as fast as it goes").tag(sync=True)

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
        setting = read_setting(trainer)
        self._sliders = make_sliders(trainer, sliders, setting)
        taken = [slider.name for slider in self._sliders if hasattr(type(self), slider.name)]
        if taken:
            raise ValueError(f"sliders: got {taken}, which a panel already has as attributes")
        chunks = make_chunks(trainer, data, batch_size, reward_fn)
        self._figure = LiveFigure(curves_of(trainer, chunks.names, curves))
        self._trainer, self._show, self._show_every = trainer, show, show_every
        _close_others(trainer, self)
        self._engine = Engine(trainer, chunks, max_steps, self._redraw)
        self._engine.symbols = {slider.name: slider.symbol for slider in self._sliders}
        self._due = self._sent = 0.0
        self._serial = self._drawn = 0  # the last frame that was sent, and the last that the page is known to have drawn
        self._quiet = False
        self._shown_step, self._shown_until = -1, 0.0

        layout = {
            **self._figure.layout(),
            "title": title or title_of(trainer),
            "unit": UNIT,
            "forks": 2,
            "show": show is not None,
            "sliders": [
                {"name": s.name, "label": s.label, "help": s.help, "stops": list(s.stops)} for s in self._sliders
            ],
        }
        self.add_traits(**{s.name: LiveKnob(s.name, setting[s.name]) for s in self._sliders})
        super().__init__(_layout=layout, _frame=self._make_frame(0))
        self.observe(self._knob_moved, names=[slider.name for slider in self._sliders])
        self.observe(self._speed_moved, names="speed")
        self.on_msg(self._command)

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
        return self._trainer.merge(self._engine.runs[run].state)[0]

    @property
    def compilations(self) -> int:
        """How often the training loop was compiled."""
        return self._engine.chunks.compilations

    def summary(self) -> str:
        """One sentence or two about what the figure shows; also its alternative text."""
        with self._engine.lock:
            return describe(self._trainer, self._engine, self._figure.groups)

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

    # What leaves the kernel ---------------------------------------------------------------------------------------

    def html(self) -> str:
        """The panel as a fragment of HTML: the picture of now, with nothing to press."""
        state = {**self.setting, "speed": self.speed, "_layout": self._layout, "_error": self._error}
        state |= {"_frame": self._frame, "_sample": self._sample}
        return fragment(script=self._esm, style=self._css, state=state, fallback=f"<p>{self.summary()}</p>")

    def png(self) -> bytes:
        """The figure of now as a picture."""
        with self._engine.lock:
            runs = self._engine.runs
            frame = self._figure.frame([run.history for run in runs], runs[-1].marks)
            labels = legend(self._engine)
        return self._figure.png(frame, labels)

    def _repr_mimebundle_(self, **kwargs):
        with self._engine.lock:
            text = describe(self._trainer, self._engine, {})
        if os.environ.get(EMBED) == "html":
            return {"text/html": self.html(), "text/plain": text}, {}
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": text, "image/png": base64.b64encode(self.png()).decode()}, metadata

    def __repr__(self) -> str:
        return f"LiveTraining({type(self._trainer).__name__}, {self.steps} steps)"

    # Between kernel and page --------------------------------------------------------------------------------------

    def set_state(self, sync_data):
        with self._engine.lock:  # the training thread sends frames meanwhile
            super().set_state(sync_data)

    def _knob_moved(self, change) -> None:
        if not self._quiet:
            self._engine.set({change["name"]: change["new"]})

    def _speed_moved(self, change) -> None:
        self._engine.pace(change["new"])

    def _command(self, _, content, buffers) -> None:
        """A button was pressed in the page, or it says what it has drawn."""
        command = content.get("do")
        if command == "hello":
            self.send({"hello": True})
            return
        if command == "drawn":
            self._drawn = max(self._drawn, content["serial"])
            return
        actions = {
            "start": self._engine.start,
            "pause": self._engine.pause,
            "step": lambda: self._engine.start(1),
            "restart": lambda: self._reset(True),
            "reset": lambda: self._reset(False),
            "fork": lambda: self._engine.fork({}),
            "drop": self._engine.drop,
        }
        try:
            if command in ("start", "step"):
                self._error = ""
            actions[command]()
            self._put_sliders()
            self._refresh()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"

    def _reset(self, keep_setting: bool) -> None:
        self._error = ""
        self._engine.reset(keep_setting)
        self._put_sliders()
        self._sample, self._shown_step = {}, -1
        self._refresh()

    def _put_sliders(self) -> None:
        """Sliders stand where the numbers are."""
        with self._engine.lock, self.hold_sync():
            self._quiet = True
            try:
                for slider in self._sliders:
                    setattr(self, slider.name, self._engine.runs[-1].wanted[slider.name])
            finally:
                self._quiet = False

    def _refresh(self) -> None:
        """Draw now: something else changed than the steps."""
        with self._engine.lock:
            self._frame = self._make_frame(0)

    def _redraw(self, final: bool) -> None:
        """Called by the training between its chunks. Only the latest is drawn, and no more than the page can take."""
        now = time.perf_counter()
        waiting = self._serial - self._drawn >= IN_FLIGHT and now - self._sent < PATIENCE
        if final or not (waiting or now < self._due):
            with self._engine.lock:
                self._serial += not final
                self._sent, self._due = now, max(self._due, now - FRAME_SECONDS) + FRAME_SECONDS
                # A picture at rest has no number: stored, it is the same however many were sent before.
                self._frame = self._make_frame(0 if final else self._serial)
                if final and self._engine.failure is not None:
                    failure = self._engine.failure
                    self._error = f"{type(failure).__name__}: {failure}"
        if self._show is not None:
            self._show_sample(final)

    def _make_frame(self, serial: int) -> dict:
        engine = self._engine
        frame = self._figure.frame([run.history for run in engine.runs], engine.runs[-1].marks)
        return {
            **self._figure.packed(frame),
            "serial": serial,
            "step": engine.steps,
            "running": engine.running,
            "compiling": engine.running and not engine.warm,
            "legend": legend(engine),
            "text": describe(self._trainer, engine, self._figure.groups),
        }

    def _show_sample(self, final: bool) -> None:
        with self._engine.lock:
            run, steps = self._engine.runs[-1], self.steps
            state = run.state
        now = time.perf_counter()
        if steps == self._shown_step or (
            not final and (steps - self._shown_step < self._show_every or now < self._shown_until)
        ):
            return
        self._shown_step = steps
        try:
            shown = self._show(self._trainer.merge(state)[0], jax.random.fold_in(self._trainer.key, steps))
            sample = {**as_sample(shown), "step": steps}
        except Exception as error:
            error.add_note("raised by the panel's show=")
            self._engine.fail(error)
            return
        self._shown_until = now + (time.perf_counter() - now) / SHOW_SHARE
        with self._engine.lock:
            self._sample = sample


def _close_others(trainer: Trainer, panel: LiveTraining) -> None:
    """Panels of this trainer, and those that an earlier run of this cell has made, are closed: a trainer has one hand
    at the wheel, and a cell that is run again leaves nothing behind that still trains."""
    cell, run = _cell()
    for (its_cell, its_run), other in list(_open):
        if other._trainer is trainer or (cell is not None and its_cell == cell and its_run != run):
            other.close()
    _open.append(((cell, run), panel))


def _cell() -> tuple[Any, Any]:
    """Which notebook cell runs now, and which time; None outside of JupyterLab."""
    try:
        from IPython import get_ipython

        shell = get_ipython()
        return shell.kernel.get_parent()["metadata"].get("cellId"), shell.execution_count
    except (ImportError, AttributeError, KeyError):
        return None, None
