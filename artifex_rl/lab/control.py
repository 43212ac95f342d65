"""A control: one knob of an explorer, with finitely many stops."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field

import numpy as np

MAX_STOPS = 501


@dataclass(frozen=True)
class Control:
    """A slider over `low`, `low + step`, …, `high`.

    Because a slider has finitely many stops, an explorer computes the curves at *all* of them in one vmapped call,
    and dragging needs no further computation.

    Args:
        name: keyword under which the curves function takes the value, such as "gamma".
        low: first stop.
        high: last stop, a whole number of steps above `low`.
        step: distance of two stops.
        value: where the slider stands at first; the nearest stop is taken.
        label: what the reader sees, such as "γ discount". Default: the name.
        help: a sentence shown when the pointer rests on the label.
        names: what the stops are called where they are a choice and not a quantity, one for each; a value may then
            be set by its name too.

    Raises:
        ValueError: the numbers make no slider.
    """

    name: str
    low: float
    high: float
    step: float
    value: float
    label: str = ""
    help: str = ""
    names: tuple[str, ...] = ()
    stops: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.startswith("_"):
            raise ValueError(f"name: got {self.name!r}, needs a Python identifier without a leading underscore")
        for key in ("low", "high", "step", "value"):
            if not _is_number(getattr(self, key)):
                raise ValueError(f"{self.name}.{key}: got {getattr(self, key)!r}, needs a finite number")
        if not self.low < self.high or self.step <= 0:
            raise ValueError(
                f"{self.name}: got {self.low} … {self.high} by {self.step}, needs low < high and step > 0"
            )
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6 or round(steps) >= MAX_STOPS:
            raise ValueError(
                f"{self.name}: got {steps:g} steps from {self.low} to {self.high}, "
                f"needs a whole number below {MAX_STOPS}"
            )
        # Rounded, so that the stop that reads 0.9 is the float that 0.9 is.
        stops = tuple(round(self.low + i * self.step, self.decimals + 6) for i in range(round(steps) + 1))
        object.__setattr__(self, "stops", stops)
        if self.names and (len(self.names) != len(stops) or len({*self.names}) != len(stops)):
            raise ValueError(
                f"{self.name}.names: got {self.names}, needs {len(stops)} different ones, one for each stop"
            )
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "value", self.snap(self.value))

    @property
    def decimals(self) -> int:
        """Digits after the point that tell two stops apart."""
        return max(0, -math.floor(math.log10(self.step) + 1e-9))

    def format(self, value: float) -> str:
        if self.names:
            return self.names[self.index(value)]
        return f"{value:.{self.decimals}f}"

    def index(self, value: float | str) -> int:
        """Index of the stop nearest to `value`, or of that name; a ValueError if it lies outside the slider."""
        if isinstance(value, str) and self.names:
            if value not in self.names:
                raise ValueError(f"{self.name}: got {value!r}, needs one of {', '.join(self.names)}")
            return self.names.index(value)
        if not _is_number(value):
            raise ValueError(f"{self.name}: got {value!r}, needs a number from {self.low:g} to {self.high:g}")
        value = float(value)
        tolerance = 1e-9 * max(1.0, abs(self.high - self.low))
        if not self.low - tolerance <= value <= self.high + tolerance:
            raise ValueError(f"{self.name}: got {value:g}, needs a number from {self.low:g} to {self.high:g}")
        return int(np.abs(np.asarray(self.stops) - value).argmin())

    def snap(self, value: float | str) -> float:
        """The stop nearest to `value`, as a slider in the hand would take it."""
        return self.stops[self.index(value)]


def _is_number(value: object) -> bool:
    real = isinstance(value, numbers.Real | np.number) or (hasattr(value, "shape") and value.shape == ())
    if not real or isinstance(value, bool | np.bool_):
        return False
    return math.isfinite(float(value))
