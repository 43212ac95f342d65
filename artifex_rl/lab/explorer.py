"""The explorer: sliders, a pure function, and a figure that follows the hand."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import traitlets
from matplotlib.figure import Figure

from artifex_rl.lab.canvas import STYLE, Canvas
from artifex_rl.lab.control import Control
from artifex_rl.lab.frames import UNIT, Curves, Knobs, coarse_stops, evaluate, grid_settings, pack, strip_settings
from artifex_rl.lab.page import fragment, page
from artifex_rl.lab.widget import LabWidget

HERE = Path(__file__).parent
#: The environment variable that says what an explorer's output carries: nothing set, a live widget; "state", also a
#: grid, so that the stored widget works without a kernel; "html", static HTML with working sliders instead of it.
EMBED = "ARTIFEX_RL_EMBED"
#: Bytes that the frames over all sliders may take in a stored notebook or a page.
GRID_BYTES = 120_000


class Knob(traitlets.Float):
    """A slider's value as a synced trait: what is assigned snaps to the nearest stop, or is refused."""

    def __init__(self, control: Control):
        super().__init__(control.value)
        self.control = control
        self.tag(sync=True)

    def validate(self, obj, value):
        try:
            return self.control.snap(value)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None


class Explorer(LabWidget):
    """Drag a slider, and the curves follow.

    An explorer is three small pieces: the *controls*, a pure *curves* function, and a matplotlib *figure* drawn once.
    The curves function is vmapped over the stops of a slider, so that the page holds the curves for every stop of the
    slider in hand, and dragging never waits for the kernel. Each knob is a synced trait of the control's name: use it
    with `ipywidgets.link` and `jslink`, read it as `explorer.gamma`, observe it.

    Args:
        controls: the sliders, at least one.
        curves: `curves(**knobs) -> {name: (P,) heights or (P, 2) points}`, pure and traceable by JAX; shapes must not
            depend on the knobs. A `jax.tree_util.Partial` over data spares compilation for other data of that shape.
        figure: `figure(curves, limits) -> matplotlib.figure.Figure`, called once, with the curves at the initial
            setting and, for each, the least and greatest value over the sliders' range. Each curve is drawn by one
            `plot` with `gid=name`; limits of the axes must be set. `artifex_rl.lab.canvas.INK` has colours and line
            styles.
        describe: `describe(knobs, curves) -> str`, one sentence with the numbers that matter: the text beside the
            figure and its alternative text.
        title: heading above the sliders.

    Raises:
        ValueError: pieces that do not fit each other; the message names the piece.
    """

    _esm = (HERE / "drawing.js").read_text("utf-8") + (HERE / "explorer.js").read_text("utf-8")
    _css = (HERE / "explorer.css").read_text("utf-8")

    _figure = traitlets.Dict().tag(sync=True)
    _strips = traitlets.Dict().tag(sync=True)
    _grid = traitlets.Dict().tag(sync=True)
    _frame = traitlets.Dict().tag(sync=True)
    _request = traitlets.Dict().tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        controls: Sequence[Control],
        curves: Callable[..., Curves],
        figure: Callable[[Curves, dict[str, tuple[float, float]]], Figure],
        describe: Callable[[Knobs, Curves], str],
        title: str = "",
    ):
        self._controls = {control.name: control for control in controls}
        if not controls or len(self._controls) != len(controls):
            raise ValueError(f"controls: got {[c.name for c in controls]}, needs at least one, with different names")
        taken = [name for name in self._controls if hasattr(type(self), name)]
        if taken:
            raise ValueError(f"controls: got {taken}, which a widget already has as attributes; choose other names")
        self._curves_function = curves
        self._describe = describe
        self._lock = threading.RLock()
        self._skip_check = False

        # Everything that can fail is done before the widget exists.
        coarse = self._evaluate(grid_settings(controls, coarse_stops(controls, most=400)))
        initial = self._evaluate([{c.name: c.value for c in controls}])[0]
        limits = {name: _range([frame[name] for frame in coarse]) for name in initial}
        with matplotlib.rc_context(STYLE):
            self._canvas = Canvas(figure(initial, limits), initial)
        self._layout = {
            "title": title,
            "unit": UNIT,
            "svg": self._canvas.svg(),
            "curves": self._canvas.layout(initial),
            "controls": [
                {
                    "name": c.name,
                    "label": c.label,
                    "help": c.help,
                    "decimals": c.decimals,
                    "names": list(c.names),
                    "stops": list(c.stops),
                    "value": c.value,
                }
                for c in controls
            ],
        }

        start = {control.name: control.value for control in controls}
        state = {"_figure": self._layout, "_strips": {c.name: self._strip(c, start) for c in controls}}
        if os.environ.get(EMBED):
            state["_grid"] = self._make_grid()
        self.add_traits(**{control.name: Knob(control) for control in controls})
        super().__init__(**state)
        self.observe(self._knob_moved, names=list(self._controls))
        self.observe(self._answer, names="_request")

    # What a hand does, from code ------------------------------------------------------------------------------------

    @property
    def controls(self) -> tuple[Control, ...]:
        return tuple(self._controls.values())

    @property
    def knobs(self) -> Knobs:
        """Where the sliders stand, by name."""
        return {name: getattr(self, name) for name in self._controls}

    def set(self, **knobs: float) -> None:
        """Move sliders, exactly as a hand does: to the stops nearest to the values given.

        Raises:
            ValueError: there is no such slider, or the value lies outside it. Nothing has moved then.
        """
        unknown = [name for name in knobs if name not in self._controls]
        if unknown:
            raise ValueError(f"set: got {', '.join(unknown)}, needs some of {', '.join(self._controls)}")
        moved = {name: self._controls[name].snap(value) for name, value in knobs.items()}
        self._checked({**self.knobs, **moved})
        with self.hold_sync(), self._already_checked():
            for name, value in moved.items():
                setattr(self, name, value)
        self._store()

    def curves(self) -> Curves:
        """The curves as they are drawn now, by name."""
        return self._checked(self.knobs)

    def summary(self) -> str:
        """One sentence that says what the figure shows now; also the figure's alternative text."""
        knobs = self.knobs
        return self._describe(knobs, self._checked(knobs))

    def fingerprint(self) -> str:
        """Rounded digest of what is drawn now: the knobs, and of each curve its mean, its root mean square and a
        weighted sum that tells one order of points from another. Print it, and a notebook test compares it."""
        knobs = ", ".join(f"{name}={self._controls[name].format(value)}" for name, value in self.knobs.items())
        digests = [f"{name}: {_digest(points)}" for name, points in self.curves().items()]
        return "\n".join([knobs, *digests])

    # What leaves the kernel -----------------------------------------------------------------------------------------

    def save_html(self, path: str | os.PathLike, title: str | None = None) -> Path:
        """Write one self-contained HTML page with working sliders: no kernel, no network.

        Args:
            path: where to; an existing file is replaced.
            title: of the page. Default: the explorer's own.
        """
        path = Path(path)
        path.write_text(page(self.html(), title or self._layout["title"] or type(self).__name__), encoding="utf-8")
        return path

    def html(self) -> str:
        """The explorer as a fragment of HTML that carries its script, its style and its frames."""
        knobs = self.knobs
        return fragment(
            script=self._esm,
            style=self._css,
            state={
                **knobs,
                "_figure": self._layout,
                "_strips": {c.name: self._strip(c, knobs) for c in self.controls},
                "_grid": self._grid or self._make_grid(),
            },
            fallback=f"<p>{self.summary()}</p>",
        )

    def _repr_mimebundle_(self, **kwargs):
        summary = self.summary()
        if os.environ.get(EMBED) == "html":
            return {"text/html": self.html(), "text/plain": summary}, {}
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        png = base64.b64encode(self._canvas.png(self.curves())).decode()
        return {**data, "text/plain": summary, "image/png": png}, metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value:g}' for name, value in self.knobs.items())})"

    # Between kernel and page ----------------------------------------------------------------------------------------

    def set_state(self, sync_data):
        with self._already_checked():  # a drag in the page is not evaluated event by event: the page has the frames
            super().set_state(sync_data)

    @contextmanager
    def _already_checked(self):
        before, self._skip_check = self._skip_check, True
        try:
            yield
        finally:
            self._skip_check = before

    def _knob_moved(self, change) -> None:
        """A knob assigned from code is evaluated at once, so that an error is raised by the assignment itself."""
        if self._skip_check:
            return
        try:
            self._checked(self.knobs)
        except Exception:
            with self._already_checked():
                setattr(self, change["name"], change["old"])
            raise
        self._store()

    def _store(self) -> None:
        """A stored notebook shows the sliders where code left them; the strips must hold there."""
        if self._grid:
            self._send_strips(self.knobs)

    def _answer(self, change) -> None:
        """The page asks for what it does not hold: the frame it must show now, and then the strips."""
        asked = change["new"].get("knobs")
        if not asked:
            return
        knobs = {name: self._controls[name].snap(value) for name, value in asked.items()}
        with self._lock:
            frame = self._checked(knobs)
            self._frame = {"held": knobs, "data": self._pack([knobs], [frame])}
            self._send_strips(knobs)

    def _send_strips(self, knobs: Knobs) -> None:
        """The strips that hold at this setting. Those that already do are the same objects and are not computed."""
        strips = {}
        for control in self.controls:
            old = self._strips.get(control.name)
            others = {name: value for name, value in knobs.items() if name != control.name}
            strips[control.name] = old if old and old["held"] == others else self._strip(control, knobs)
        if strips != self._strips:
            self._strips = strips

    def _strip(self, control: Control, knobs: Knobs) -> dict:
        settings = strip_settings(self.controls, control, knobs)
        others = {name: value for name, value in knobs.items() if name != control.name}
        return {"held": others, "data": self._pack(settings, self._evaluate(settings))}

    def _make_grid(self) -> dict:
        """Frames over all sliders, on the finest stops that fit into `GRID_BYTES`."""
        most = 4000
        while True:
            stops = coarse_stops(self.controls, most)
            settings = grid_settings(self.controls, stops)
            data = self._pack(settings, self._evaluate(settings))
            if len(data) <= GRID_BYTES or most < 8:
                return {"stops": {c.name: s for c, s in zip(self.controls, stops, strict=True)}, "data": data}
            most = int(len(settings) * min(0.8, GRID_BYTES / len(data)))

    def _pack(self, settings: Sequence[Knobs], frames: Sequence[Curves]) -> bytes:
        texts = [self._describe(knobs, frame) for knobs, frame in zip(settings, frames, strict=True)]
        return pack(self._canvas.points(frames), texts)

    def _evaluate(self, settings: Sequence[Knobs]) -> list[Curves]:
        # One chunk size for strips, grid and single frames: one compilation.
        chunk = max(len(control.stops) for control in self._controls.values())
        return evaluate(self._curves_function, settings, chunk)

    def _checked(self, knobs: Knobs) -> Curves:
        """The curves at a setting; an exception is shown in the widget as well as raised."""
        try:
            curves = self._evaluate([knobs])[0]
            self._describe(knobs, curves)
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
            raise
        self._error = ""
        return curves


def _range(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([array[..., -1] if array.ndim == 2 else array for array in arrays])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _digest(points: np.ndarray) -> str:
    flat = np.asarray(points, float).ravel()
    finite = np.where(np.isfinite(flat), flat, 0.0)
    weights = np.cos(np.arange(flat.size))
    mean, rms, order = finite.mean(), np.sqrt((finite**2).mean()), (weights * finite).mean()
    # All to four digits of the root mean square: a sum that nearly cancels has no digits of its own that hold
    # on another processor.
    decimals = 3 - int(np.floor(np.log10(rms))) if rms > 0 else 0
    numbers = ", ".join(
        f"{name} {round(value, decimals) + 0.0:.{max(decimals, 0)}f}"
        for name, value in (("mean", mean), ("rms", rms), ("order", order))
    )
    gaps = int((~np.isfinite(flat)).sum())
    return numbers + (f", gaps {gaps}" if gaps else "")
