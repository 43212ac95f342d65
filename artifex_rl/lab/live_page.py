"""A live panel's page: the frames that go to it, and what is pressed and dragged in it."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import traitlets

from artifex_rl.lab.engine import Engine
from artifex_rl.lab.explorer import EMBED
from artifex_rl.lab.frames import UNIT
from artifex_rl.lab.live_figure import LiveFigure
from artifex_rl.lab.live_text import describe, legend
from artifex_rl.lab.page import fragment
from artifex_rl.lab.sliders import Slider, check_setting
from artifex_rl.lab.widget import LabWidget
from artifex_rl.samples import as_sample

HERE = Path(__file__).parent
#: Seconds between two frames, at least, on average: a frame leaves when a chunk has begun, and chunks keep no time.
FRAME_SECONDS = 1 / 28
#: Seconds between two frames that ask the page what it has drawn: an answer costs the page, the server and the kernel
#: more than a frame, as JupyterLab shows each time that the kernel is busy. Without an answer the `ANOTHER`th frame
#: after it asks again.
ASK_SECONDS, ANOTHER = 1.0, 6
#: Frames that may be on their way to a page that has not answered, and seconds after which one is sent anyway.
IN_FLIGHT, PATIENCE = 12, 0.5
#: Share of the time that `show` may take.
SHOW_SHARE = 0.04


class LiveKnob(traitlets.Float):
    """A number of the trainer as a synced trait: what its config refuses is refused."""

    def __init__(self, name: str, value: float):
        super().__init__(value)
        self._name = name
        self.tag(sync=True)

    def validate(self, obj, value):
        value, engine = super().validate(obj, value), obj._engine
        try:
            check_setting(engine.trainer.config, engine.runs[-1].wanted, {self._name: value}, engine.places)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return value


class LivePage(LabWidget):
    """What `LiveTraining` shows and hears: all of it that is between kernel and page.

    Args:
        engine: trains; it calls `_redraw` while it does.
        figure: draws the engine's runs.
        sliders: one for each number that can be moved.
        show: as for `LiveTraining`, or None.
        show_every: steps between two calls of `show`, at least.
        title: heading of the panel.
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
        engine: Engine,
        figure: LiveFigure,
        sliders: Sequence[Slider],
        show: Callable[[Any, jax.Array], Any] | None,
        show_every: int,
        title: str,
    ):
        self._engine, self._figure, self._sliders = engine, figure, sliders
        self._show, self._show_every = show, show_every
        engine.symbols = {slider.name: slider.symbol for slider in sliders}
        self._due = self._sent = 0.0
        self._serial = self._drawn = 0  # the last frame that was sent, and the last that the page says it has drawn
        self._asked, self._asked_at = 0, float("-inf")  # the last frame that asks, and when it was sent
        self._quiet = False
        self._shown_step, self._shown_until = -1, 0.0
        layout = {
            **figure.layout(),
            "title": title,
            "unit": UNIT,
            "forks": 2,
            "show": show is not None,
            "sliders": [{"name": s.name, "label": s.label, "help": s.help, "stops": list(s.stops)} for s in sliders],
        }
        self.add_traits(**{s.name: LiveKnob(s.name, engine.runs[0].wanted[s.name]) for s in sliders})
        super().__init__(_layout=layout, _frame=self._make_frame(0))
        self.observe(self._knob_moved, names=[slider.name for slider in sliders])
        self.observe(self._speed_moved, names="speed")
        self.on_msg(self._command)

    # What leaves the kernel ---------------------------------------------------------------------------------------

    def summary(self) -> str:
        """One sentence or two about what the figure shows; also its alternative text."""
        with self._engine.lock:
            return describe(self._engine.trainer, self._engine, self._figure.groups)

    def html(self) -> str:
        """The panel as a fragment of HTML: the picture of now, with nothing to press."""
        state = {**self._engine.runs[-1].wanted, "speed": self.speed, "_layout": self._layout, "_error": self._error}
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
            text = describe(self._engine.trainer, self._engine, {})
        if os.environ.get(EMBED) == "html":
            return {"text/html": self.html(), "text/plain": text}, {}
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": text, "image/png": base64.b64encode(self.png()).decode()}, metadata

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
        waiting = (
            self._asked > self._drawn and self._serial - self._drawn >= IN_FLIGHT and now - self._sent < PATIENCE
        )
        if final or not (waiting or now < self._due):
            with self._engine.lock:
                self._serial += not final
                self._sent, self._due = now, max(self._due, now - FRAME_SECONDS) + FRAME_SECONDS
                if not final:
                    self._ask(now)
                # A picture at rest has no number: stored, it is the same however many were sent before.
                self._frame = self._make_frame(0 if final else self._serial)
                if final and self._engine.failure is not None:
                    failure = self._engine.failure
                    self._error = f"{type(failure).__name__}: {failure}"
        if self._show is not None:
            self._show_sample(final)

    def _ask(self, now: float) -> None:
        """Have the page answer the frame that leaves now, if it is time to."""
        answered = self._asked <= self._drawn
        if (now - self._asked_at >= ASK_SECONDS) if answered else (self._serial - self._asked >= ANOTHER):
            if answered:
                self._drawn = self._serial - 1  # it has drawn those before, too: it had time enough
            self._asked, self._asked_at = self._serial, now

    def _make_frame(self, serial: int) -> dict:
        engine = self._engine
        frame = self._figure.frame([run.history for run in engine.runs], engine.runs[-1].marks)
        return {
            **self._figure.packed(frame),
            "serial": serial,
            "ask": serial and self._asked,
            "step": engine.steps,
            "running": engine.running,
            "compiling": engine.running and not engine.warm,
            "legend": legend(engine),
            "text": describe(self._engine.trainer, engine, self._figure.groups),
        }

    def _show_sample(self, final: bool) -> None:
        with self._engine.lock:
            run, steps = self._engine.runs[-1], self._engine.steps
            state = run.state
        now = time.perf_counter()
        if steps == self._shown_step or (
            not final and (steps - self._shown_step < self._show_every or now < self._shown_until)
        ):
            return
        self._shown_step = steps
        try:
            shown = self._show(
                self._engine.trainer.merge(state)[0], jax.random.fold_in(self._engine.trainer.key, steps)
            )
            sample = {**as_sample(shown), "step": steps}
        except Exception as error:
            error.add_note("raised by the panel's show=")
            self._engine.fail(error)
            return
        self._shown_until = now + (time.perf_counter() - now) / SHOW_SHARE
        with self._engine.lock:
            self._sample = sample
