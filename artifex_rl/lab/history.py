"""What a run has seen: every metric of every step, and the same in at most 160 buckets, which is what is drawn."""

from __future__ import annotations

import numpy as np

#: Most points of a drawn curve; a bucket then holds 1, 2, 4, … steps.
BUCKETS = 160
#: Steps that the empty axes have room for; doubled whenever a run needs more.
FIRST_SPAN = 20
#: How much of the next bucket's average comes from the buckets before.
_KEEP = 0.85
_LAGS = np.arange(BUCKETS)[:, None] - np.arange(BUCKETS)[None]
_WEIGHTS = np.where(_LAGS >= 0, _KEEP ** np.maximum(_LAGS, 0), 0.0)


class History:
    """Metrics of one run, one row a step.

    Buckets are a function of the rows alone: in what chunks the rows arrived leaves no trace.
    """

    def __init__(self, start: int = 0):
        self.names: tuple[str, ...] = ()
        self.start = start  # rows before this one are those of the run that this one was forked from
        self.steps = 0
        self.width = 1  # steps of a bucket
        self._rows = np.empty((0, 0))
        self._sums = self._counts = np.zeros((BUCKETS, 0))

    def fork(self) -> History:
        """A history that goes on from here, apart from this one."""
        twin = History(start=self.steps)
        twin.names, twin.steps, twin.width = self.names, self.steps, self.width
        twin._rows = self._rows[: self.steps].copy()
        twin._sums, twin._counts = self._sums.copy(), self._counts.copy()
        return twin

    def add(self, names: tuple[str, ...], rows: np.ndarray) -> None:
        """Append rows `(L, K)`; what is not finite counts in no bucket."""
        if not self.names:
            self.names = names
            self._rows = np.empty((1024, len(names)))
            self._sums, self._counts = (np.zeros((BUCKETS, len(names))) for _ in range(2))
        end = self.steps + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows)), len(names)))
            grown[: self.steps] = self._rows[: self.steps]
            self._rows = grown
        self._rows[self.steps : end] = rows
        while self.steps < end:
            if self.steps == BUCKETS * self.width:
                self._halve()
            upto = min(end, BUCKETS * self.width)
            new = self._rows[self.steps : upto]
            where = np.arange(self.steps, upto) // self.width
            known = np.isfinite(new)
            np.add.at(self._sums, where, np.where(known, new, 0.0))
            np.add.at(self._counts, where, known)
            self.steps = upto

    def _halve(self) -> None:
        for table in (self._sums, self._counts):
            table[: BUCKETS // 2] = table[0::2] + table[1::2]
            table[BUCKETS // 2 :] = 0.0
        self.width *= 2

    def column(self, name: str) -> np.ndarray:
        """One metric, a number a step: a view, to be read at once."""
        return self._rows[: self.steps, self.names.index(name)]

    def series(self) -> dict[str, np.ndarray]:
        """Every metric, one number a step."""
        return {name: self.column(name).copy() for name in self.names}

    def curves(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Means of buckets of `width` steps, and their running average, both `(buckets, K)`; NaN where none is.

        `width` is this history's own, times a power of two. The average weighs the bucket j places back with 0.85ʲ.
        """
        sums, counts, own = self._sums, self._counts, self.width
        while own < width:
            sums, counts, own = sums[0::2] + sums[1::2], counts[0::2] + counts[1::2], own * 2
        used = -(-self.steps // width)
        sums, counts = sums[:used], counts[:used]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
            known = counts > 0
            weights = _WEIGHTS[:used, :used]
            smooth = (weights @ np.where(known, means, 0.0)) / (weights @ known.astype(float))
        return means, smooth


def span(steps: int) -> int:
    """How many steps the axes show: 20, 40, 80, … whichever has room for so many."""
    room = FIRST_SPAN
    while room < steps:
        room *= 2
    return room


#: Distances of ticks, as multiples of a power of ten.
_NICE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def nice_limits(low: float, high: float, parts: int = 4) -> tuple[float, float]:
    """The narrowest limits around [low, high] whose `parts` equal parts begin and end at round numbers."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
        pad = 0.5 * abs(high) or 0.5
        low, high = low - pad, high + pad
    power = 10.0 ** np.floor(np.log10((high - low) / parts))
    for scale in (power, 10 * power):
        for nice in _NICE:
            step = nice * scale
            first = np.floor(low / step + 1e-9)
            if (first + parts) * step >= high - 1e-9 * step:
                return float(first * step), float((first + parts) * step)
    raise AssertionError("unreachable: ten times the power of ten holds the range")


def tick_labels(low: float, high: float, parts: int = 4) -> list[str]:
    """What stands at the ends of the equal parts: as short as they can be told apart."""
    values = np.linspace(low, high, parts + 1)
    largest, step = np.abs(values).max(), (high - low) / parts
    if largest >= 10_000 or step < 1e-4:
        exponent = int(np.floor(np.log10(largest)))
        exponent = 3 * (exponent // 3)
        suffix = {3: "k", 6: "M"}.get(exponent, f"e{exponent}")
        return [f"{_short(v / 10.0**exponent)}{suffix}" if v else "0" for v in values]
    return [_short(v) for v in values]


def _short(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return (text or "0").replace("-0", "0") if float(text or 0) == 0 else text.replace("-", "−")
