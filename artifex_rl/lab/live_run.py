"""One line of a live training: where it stands, what it has seen, and the numbers that are wanted of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from artifex_rl.lab.history import History
from artifex_rl.lab.live_figure import Mark

#: The name of the mark where a fork begins; no number is called that.
FORK = "what if"


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a run stands: what a chunk begins with, and what it ends with. It never changes; another one follows."""

    state: Any
    carry: Any  # what the chunks keep beside the state
    config: Any
    placed: Any  # the config as the chunks take it
    setting: dict[str, float]  # the numbers that can be moved, as they are in state and config
    marks: tuple[Mark, ...] = ()

    def marked(self, step: int, name: str, value: float, text: str) -> Point:
        """The same, with one more mark."""
        return dataclasses.replace(self, marks=(*self.marks, Mark(step, name, value, text)))


class Run:
    """One line of training, from the start or from a fork."""

    def __init__(self, point: Point, history: History):
        self.point, self.history = point, history
        self.wanted = point.setting  # what it trains with from the next chunk on

    @property
    def state(self) -> Any:
        return self.point.state

    @property
    def config(self) -> Any:
        return self.point.config

    @property
    def setting(self) -> dict[str, float]:
        return self.point.setting

    @property
    def marks(self) -> tuple[Mark, ...]:
        return self.point.marks
