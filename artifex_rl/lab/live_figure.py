"""The figure of a live training: small axes side by side, drawn once by matplotlib, whose curves and labels move.

All axes are drawn from 0 to 1 with four equal parts. What a part stands for changes as the run grows, so that a frame
is the heights of the curves as shares of the axes, and the texts of the ticks. The page and the PNG get the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from artifex_rl.lab.canvas import INK, STYLE, Canvas
from artifex_rl.lab.frames import quantise
from artifex_rl.lab.history import BUCKETS, History, nice_limits, span, tick_labels

#: Runs that can be told apart: the first, and two forks.
RUN_STYLES = ("-", (0, (4, 1.6)), (0, (1.1, 1.2)))
_COLOURS = [INK[name]["color"] for name in ("blue", "orange", "green", "pink", "grey")]
_WIDTHS = (1.9, 1.4, 1.1, 1.1, 1.1)
#: Less than a pixel on a common screen: a browser without a GPU draws a hairline in half the time of a stroke.
_RAW_WIDTH = 0.55
_PARTS = 4
_WIDEST = {"x": "20.48k", "y": "−0.0005"}  # room for a tick's label

Groups = dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A slider moved: from this step on the number has this value."""

    step: int
    name: str
    value: float
    text: str  # at the mark, such as "ε 0.3"


@dataclasses.dataclass(frozen=True)
class Frame:
    """What the figure shows at one moment, in shares of its axes."""

    pitch: float  # distance of two points
    heights: dict[str, np.ndarray]  # by the line's gid: 0 at the lower end, 1 at the upper; NaN: no point
    x_labels: list[str]
    y_labels: list[list[str]]  # of each axes
    marks: list[tuple[float, str]]  # where a slider moved, and what stands there; "" where there is no room


class LiveFigure:
    """Draws groups of metrics.

    Args:
        groups: title of each axes and the metrics in it, at most five.
    """

    def __init__(self, groups: Groups):
        self.groups = groups
        with matplotlib.rc_context(STYLE):
            self._canvas = Canvas(self._draw(None), {})
        axes = self._canvas.figure.axes
        boxes = [ax.get_window_extent() for ax in axes]
        height = self._canvas.height
        self.boxes = [[round(v, 2) for v in (b.x0, height - b.y1, b.x1, height - b.y0)] for b in boxes]

    def layout(self) -> dict:
        """What the page must know once."""
        return {
            "svg": self._canvas.svg(),
            "lines": self._gids(),
            "parts": _PARTS,
            "axes": [
                {"box": box, "title": title, "metrics": list(metrics)}
                for box, (title, metrics) in zip(self.boxes, self.groups.items(), strict=True)
            ],
        }

    def _gids(self) -> list[str]:
        return [
            _gid(i, k, run, kind)
            for i, metrics in enumerate(self.groups.values())
            for k in range(len(metrics))
            for run in range(len(RUN_STYLES))
            for kind in ("raw", "smooth")
        ]

    def frame(self, histories: Sequence[History], marks: Sequence[Mark]) -> Frame:
        """What these runs look like now; the marks are those of the last one."""
        room = span(max(history.steps for history in histories))
        width = max(1, room // BUCKETS)
        curves = [history.curves(width) for history in histories]
        heights, y_labels = {}, []
        for i, metrics in enumerate(self.groups.values()):
            chosen: dict[str, np.ndarray] = {}
            for run, (history, (means, smooth)) in enumerate(zip(histories, curves, strict=True)):
                begins = history.start // width
                for k, metric in enumerate(metrics):
                    if metric in history.names:
                        column = history.names.index(metric)
                        for kind, values in (("raw", means), ("smooth", smooth)):
                            own = values[:, column].copy()
                            own[:begins] = np.nan
                            chosen[_gid(i, k, run, kind)] = own
            low, high = _limits(chosen)
            heights |= {gid: (values - low) / (high - low) for gid, values in chosen.items()}
            y_labels.append(tick_labels(low, high, _PARTS))
        x_labels = tick_labels(0, room, _PARTS)
        return Frame(width / room, heights, x_labels, y_labels, _thin(marks, room))

    def packed(self, frame: Frame) -> dict:
        """A frame for the page: heights in the coordinates of the SVG, one row of 16-bit integers for each line."""
        gids = self._gids()
        rows = {gid: heights for gid, heights in frame.heights.items() if np.isfinite(heights).any()}
        points = [quantise(self._place(gid, heights)) for gid, heights in rows.items()]
        count = max(map(len, points), default=0)
        table = (
            np.stack([np.pad(row, (0, count - len(row)), constant_values=-32768) for row in points]) if rows else ()
        )
        return {
            "lines": [gids.index(gid) for gid in rows],
            "count": count,
            "pitch": frame.pitch,
            "data": np.asarray(table, "<i2").tobytes(),
            "x": frame.x_labels,
            "y": frame.y_labels,
            "marks": [list(mark) for mark in frame.marks],
        }

    def _place(self, gid: str, heights: np.ndarray) -> np.ndarray:
        _, top, _, bottom = self.boxes[int(gid.split("-")[1])]
        return bottom - np.clip(heights, -1.0, 2.0) * (bottom - top)  # what lies outside is cut by the axes' frame

    def png(self, frame: Frame, labels: Sequence[str], dpi: int = 110) -> bytes:
        """The same as a picture, with a legend of the runs."""
        with matplotlib.rc_context(STYLE):
            return Canvas(self._draw(frame, labels), {}).png({}, dpi)

    def _draw(self, frame: Frame | None, labels: Sequence[str] = ()) -> Figure:
        """The figure of a frame; of none, every line there can be, with room for its labels."""
        count = len(self.groups)
        columns = min(3, count) if count != 4 else 2
        rows = -(-count // columns)
        head = 0.24 * len(labels)
        fig = Figure(figsize=(8.6, 0.35 + 1.62 * rows + head), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.06, h_pad=0.05, rect=(0, 0, 1, 1 - head / fig.get_figheight()))
        heads: list[tuple[Text, Legend]] = []
        for i, (title, metrics) in enumerate(self.groups.items()):
            ax = fig.add_subplot(rows, columns, i + 1)
            ticks = np.linspace(0, 1, _PARTS + 1)
            lowest = i + columns >= count
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="step" if lowest else "")
            ax.set_xticks(ticks, frame.x_labels if frame else [_WIDEST["x"]] * len(ticks))
            ax.set_yticks(ticks, frame.y_labels[i] if frame else [_WIDEST["y"]] * len(ticks))
            ax.tick_params(labelbottom=lowest, labelsize=9, length=2.5)
            heading = ax.set_title(title, fontsize=10.5, pad=5)
            for axis, texts in (("x", ax.get_xticklabels()), ("y", ax.get_yticklabels())):
                for part, text in enumerate(texts):
                    text.set_gid(f"{axis}tick-{i}-{part}")
            for k, metric in enumerate(metrics):
                for run, style in enumerate(RUN_STYLES):
                    self._draw_lines(ax, frame, i, k, run, style, metric)
            if len(metrics) > 1 and ax.get_legend_handles_labels()[0]:  # none before the first step
                key = ax.legend(
                    loc="lower right",
                    bbox_to_anchor=(1.02, 0.97),
                    ncols=len(metrics),
                    fontsize=8.5,
                    handlelength=1.2,
                    columnspacing=0.9,
                    handletextpad=0.4,
                    borderpad=0.1,
                )
                heads.append((heading, key))
            if frame:
                _draw_marks(ax, frame.marks)
        for run, label in enumerate(labels):
            y = 1 - (0.13 + 0.24 * run) / fig.get_figheight()
            line = matplotlib.lines.Line2D([0.012, 0.05], [y, y], color="black", lw=1.8, ls=RUN_STYLES[run])
            fig.add_artist(line)
            fig.text(0.058, y, label, fontsize=9.5, va="center")
        _part(fig, heads)
        return fig

    def _draw_lines(self, ax, frame, i, k, run, style, metric) -> None:
        for kind in ("raw", "smooth"):
            gid = _gid(i, k, run, kind)
            heights = frame.heights.get(gid) if frame else np.zeros(2)
            if heights is None:
                continue
            pitch = frame.pitch if frame else 1.0
            x = (np.arange(len(heights)) + 0.5) * pitch
            how = {"lw": _WIDTHS[k], "ls": style} if kind == "smooth" else {"lw": _RAW_WIDTH, "alpha": 0.46}
            shown = kind == "smooth" and run == 0
            (line,) = ax.plot(x, heights, gid=gid, color=_COLOURS[k], label=_words(metric) if shown else "_", **how)
            line.set(solid_joinstyle="bevel", dash_joinstyle="bevel")  # round ones cost a browser more than the line


def _part(fig: Figure, heads: Sequence[tuple[Text, Legend]]) -> None:
    """A heading that would run into the names of its curves goes one line higher."""
    if heads:
        fig.draw_without_rendering()  # now they have their places
    for heading, key in heads:
        if heading.get_window_extent().x1 > key.get_window_extent().x0:
            heading.axes.set_title(heading.get_text(), fontsize=heading.get_fontsize(), pad=17)


def _draw_marks(ax, marks) -> None:
    for x, text in marks:
        ax.axvline(x, color="#7f7f7f", lw=0.9)
        if text:
            ax.text(x, 0.98, f" {text}", fontsize=8, rotation=90, ha="right", va="top", color="#555555")


def _gid(axes: int, metric: int, run: int, kind: str) -> str:
    return f"line-{axes}-{metric}-{run}-{kind}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _limits(curves: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Around the smooth curves and nearly all of the raw ones: a lone spike is cut off, and flattens nothing."""
    ends = []
    for gid, values in curves.items():
        known = np.sort(values[np.isfinite(values)])
        if len(known):
            cut = len(known) // 40 if gid.endswith("raw") else 0
            ends += [known[cut], known[-1 - cut]]
    return nice_limits(min(ends), max(ends), _PARTS) if ends else (0.0, 1.0)


def _thin(marks: Sequence[Mark], room: int) -> list[tuple[float, str]]:
    """Where the lines stand. A drag makes many marks: one line for those of one slider that are as good as at one
    place, with the last value; and no second label on top of another."""
    groups: list[list[Mark]] = []
    for mark in marks:
        last = groups[-1][-1] if groups else None
        if last and last.name == mark.name and mark.step - last.step <= room / 50:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    placed, free = [], 2.0
    for group in reversed(groups):  # the latest have their label
        x = group[-1].step / room
        labelled = free - x >= 0.075
        free = x if labelled else free
        placed.append((round(x, 5), group[-1].text if labelled else ""))
    return placed[::-1]
