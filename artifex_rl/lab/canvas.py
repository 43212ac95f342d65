"""The figure of an explorer: drawn once by matplotlib as SVG, then moved point by point in the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from artifex_rl.lab.frames import UNIT, Curves, quantise

#: Okabe and Ito's palette, told apart by colour-blind readers; each with a line style, told apart without colour.
INK = {
    "blue": {"color": "#0072B2", "linestyle": "-"},
    "orange": {"color": "#D55E00", "linestyle": (0, (5, 1.6))},
    "green": {"color": "#009E73", "linestyle": (0, (1.2, 1.4))},
    "pink": {"color": "#CC79A7", "linestyle": (0, (6, 1.5, 1.2, 1.5))},
    "grey": {"color": "#7f7f7f", "linestyle": (0, (2, 2))},
}

#: How every explorer looks. Black becomes the page's own text colour, so that a dark theme is dark throughout.
STYLE = {
    "figure.dpi": 72,  # SVG's unit is the point, 1/72 inch: data and page then share coordinates
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#8888884d",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "artifex_rl",  # ids that do not change from run to run
}


class Canvas:
    """A matplotlib figure whose moving lines carry the names of the curves as their gid.

    Args:
        figure: drawn with the curves at the initial setting, in the style `STYLE`, with fixed limits.
        curves: those curves, by name: `(P,)` heights over the line's own x, or `(P, 2)` points.

    Raises:
        ValueError: a curve has no line with its name as gid, more than one, or another number of points.
    """

    def __init__(self, figure: Figure, curves: Curves):
        self.figure = figure
        FigureCanvasAgg(figure)
        if figure.get_layout_engine() is None:
            figure.set_layout_engine("constrained")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # from here on nothing may shift
        self.height = figure.get_figheight() * 72
        self.lines = {name: self._find(name, points) for name, points in curves.items()}
        for line in self.lines.values():
            _draw_every_marker(line)

    def _find(self, name: str, points: np.ndarray) -> Line2D:
        lines = self.figure.findobj(lambda artist: isinstance(artist, Line2D) and artist.get_gid() == name)
        if len(lines) != 1:
            raise ValueError(f"figure: got {len(lines)} lines with gid {name!r}, needs one for that curve")
        if points.ndim > 2 or (points.ndim == 2 and points.shape[1] != 2):
            raise ValueError(f"curves[{name!r}]: got shape {points.shape}, needs (P,) or (P, 2)")
        drawn = len(lines[0].get_xdata())
        if drawn != len(points):
            raise ValueError(f"figure: the line with gid {name!r} has {drawn} points, its curve has {len(points)}")
        return lines[0]

    def points(self, frames: Sequence[Curves]) -> np.ndarray:
        """The frames in SVG coordinates, `(frames, numbers)`: for each curve its x if they move, then its y."""
        blocks = []
        for name, line in self.lines.items():
            data = np.stack([frame[name] for frame in frames]).astype(float)
            moves = data.ndim == 3
            x = data[..., 0] if moves else np.broadcast_to(np.asarray(line.get_xdata(), float), data.shape)
            y = data[..., 1] if moves else data
            placed = self._place(line, x, y)
            blocks += [placed[..., 0], placed[..., 1]] if moves else [placed[..., 1]]
        return quantise(np.concatenate(blocks, axis=1))

    def _place(self, line: Line2D, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        finite = np.isfinite(x) & np.isfinite(y)
        pairs = np.stack([np.where(finite, x, 0.0), np.where(finite, y, 0.0)], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a log axis below 0 is a gap, as it is in matplotlib
            placed = line.get_transform().transform(pairs.reshape(-1, 2)).reshape(pairs.shape)
        placed[..., 1] = self.height - placed[..., 1]
        return np.where(finite[..., None], placed, np.nan)

    def layout(self, curves: Curves) -> list[dict]:
        """For each curve what the page must know once: how many points, their x, and the way back to data."""
        described = []
        for name, line in self.lines.items():
            fixed = curves[name].ndim == 1
            entry = {"name": name, "label": line.get_label(), "count": len(curves[name]), "x": None, "data": None}
            if fixed:
                x = np.asarray(line.get_xdata(), float)
                placed = self._place(line, x, np.zeros_like(x) if self._linear(line) else np.ones_like(x))
                entry["x"] = (quantise(placed[:, 0]) / UNIT).tolist()
                if self._linear(line):
                    entry["data"] = self._readable(line, x)
            described.append(entry)
        return described

    def _linear(self, line: Line2D) -> bool:
        return line.axes is not None and line.axes.get_xscale() == line.axes.get_yscale() == "linear"

    def _readable(self, line: Line2D, x: np.ndarray) -> dict:
        """The data under the pointer: x values, the line from SVG y to data y, and the axes' box."""
        zero, one = self._place(line, np.zeros(2), np.array([0.0, 1.0]))[:, 1]
        box = line.axes.get_window_extent()
        return {
            "x": [round(float(value), 6) for value in x],
            "y": [1 / (one - zero), -zero / (one - zero)],
            "box": [round(v, 2) for v in (box.x0, self.height - box.y1, box.x1, self.height - box.y0)],
            "xlabel": line.axes.get_xlabel(),
        }

    def svg(self) -> str:
        """The figure as SVG text, in the page's own colours and fonts."""
        buffer = io.StringIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = text.replace("#000000", "currentColor")
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        return re.sub(r"\n\s*", "\n", text)

    def png(self, curves: Curves, dpi: int = 110) -> bytes:
        """The figure with these curves, as `savefig` draws it, on white."""
        for name, line in self.lines.items():
            if curves[name].ndim == 2:
                line.set_data(curves[name].T)
            else:
                line.set_ydata(curves[name])
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def _draw_every_marker(line: Line2D) -> None:
    """A marker that is a gap at first must be in the SVG all the same: a frame may have a point there."""
    if line.get_marker() in ("None", "none", " ", "", None):
        return
    x, y = (np.asarray(values, float) for values in line.get_data())
    middle = line.axes.transData.inverted().transform(line.axes.transAxes.transform((0.5, 0.5)))
    line.set_data(*(np.where(np.isfinite(at), at, centre) for at, centre in zip((x, y), middle, strict=True)))
