"""Checks of exercises: they say what is wrong and where to look, and never what the answer is.

A check is called with the learner's answer and prints one verdict. It never raises, so that a notebook whose
exercises are still stubs runs from top to bottom. The verdict is the same on every machine.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: The learner may compute in float32, the reference in float64.
RTOL, ATOL = 1e-4, 1e-5


class Check:
    """Something to call with an answer. `verdict` is the text, calling prints it."""

    name: str

    def verdict(self, answer: Any) -> str:
        raise NotImplementedError

    def __call__(self, answer: Any) -> None:
        print(f"{self.name}: {self.verdict(answer)}")


@dataclass(frozen=True)
class Exercise(Check):
    """A function to be written, compared with a reference on a few small cases.

    Args:
        name: of the function, as the learner writes it.
        reference: the right function.
        cases: keyword arguments of the function, by the name of the case. A learner may look at them:
            `exercise.cases["two episodes"]`.
        mistakes: pairs of a wrong function and a hint. Where the learner's results are those of a wrong function in
            every case, its hint is given.
    """

    name: str
    reference: Callable = field(repr=False)
    cases: Mapping[str, Mapping[str, Any]]
    mistakes: tuple[tuple[Callable, str], ...] = field(default=(), repr=False)

    def verdict(self, answer: Any) -> str:
        if not callable(answer):
            return f"✗ got {_described(answer)}, needs the function itself: its name without brackets."
        results = {}
        for case in self.cases:
            try:
                results[case] = answer(**self._inputs(case))
            except NotImplementedError:
                return "… not written yet."
            except Exception as error:
                return f"✗ in the case “{case}” it raised {_raised(error, answer)}"
        empty = [case for case, result in results.items() if result is None or result is Ellipsis]
        if len(empty) == len(results):
            return "… not written yet. (Written, but it returns nothing? Then the return is missing.)"
        if empty:
            return f"✗ in the case “{empty[0]}” it returned nothing: does every path end in a return?"
        return self._compare(results)

    def _compare(self, results: Mapping[str, Any]) -> str:
        right = self._run(self.reference)
        arrays = {}
        for case, result in results.items():
            try:
                arrays[case] = np.asarray(result, float)
            except (TypeError, ValueError):
                return f"✗ in the case “{case}” it returned {_described(result)}, needs an array of numbers."
            if arrays[case].shape != right[case].shape:
                shapes = f"shape {arrays[case].shape}, needs {right[case].shape}"
                return f"✗ in the case “{case}” the result has {shapes}."
        wrong = [case for case in self.cases if not _same(arrays[case], right[case])]
        if not wrong:
            return "✓ right."
        case = wrong[0]
        place = _place(arrays[case], right[case])
        for mistake, hint in self.mistakes:
            known = self._run(mistake)
            if all(_same(arrays[name], known[name]) for name in self.cases):
                return f"✗ in the case “{case}” {place}.\n  Hint: {hint}"
        if np.asarray(results[case]).dtype.kind in "iub":
            place += (
                ". It holds whole numbers: was it made from an array of whole numbers, such as zeros_like(dones)?"
            )
        return f"✗ in the case “{case}” {place.removesuffix('.')}."

    def _inputs(self, case: str) -> dict[str, Any]:
        """Fresh copies: an answer that writes into its inputs harms nobody."""
        return copy.deepcopy(dict(self.cases[case]))

    def _run(self, function: Callable) -> dict[str, np.ndarray]:
        return {case: np.asarray(function(**self._inputs(case)), float) for case in self.cases}


@dataclass(frozen=True)
class Number(Check):
    """A number to be found.

    Args:
        name: what the number is.
        value: the right one.
        too_low: where to look if the answer is too low.
        too_high: where to look if the answer is too high.
        tolerance: the answer may be off by this much.
        mistakes: pairs of a wrong number and the hint for it.
    """

    name: str
    value: float = field(repr=False)
    too_low: str = field(repr=False)
    too_high: str = field(repr=False)
    tolerance: float = 1e-6
    mistakes: tuple[tuple[float, str], ...] = field(default=(), repr=False)

    def verdict(self, answer: Any) -> str:
        if answer is None or answer is Ellipsis:
            return "… no answer yet."
        try:
            number = float(answer)
        except (TypeError, ValueError):
            return f"✗ got {_described(answer)}, needs a number."
        if not np.isfinite(number):
            return "✗ needs a finite number."
        if abs(number - self.value) <= self.tolerance:
            return "✓ right."
        for mistake, hint in self.mistakes:
            if abs(number - mistake) <= self.tolerance:
                return f"✗ not that. Hint: {hint}"
        return f"✗ too low. Hint: {self.too_low}" if number < self.value else f"✗ too high. Hint: {self.too_high}"


@dataclass(frozen=True)
class Choice(Check):
    """A question with some answers to choose from. Each has an explanation, shown when it is chosen and not before.

    Args:
        name: of the question; the notebook asks it.
        right: the right choice.
        explanations: for every choice, why it is right, or what speaks against it.

    Raises:
        ValueError: the right choice has no explanation.
    """

    name: str
    right: str = field(repr=False)
    explanations: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if self.right not in self.explanations:
            raise ValueError(f"right: got {self.right!r}, needs one of {', '.join(self.explanations)}")

    def verdict(self, answer: Any) -> str:
        if answer is None or answer is Ellipsis:
            return "… no answer yet."
        chosen = str(answer).strip().lower()
        if chosen not in self.explanations:
            return f"✗ got {_described(answer)}, needs one of {', '.join(map(repr, self.explanations))}."
        mark = "✓ right." if chosen == self.right else "✗ not quite."
        return f"{mark} {self.explanations[chosen]}"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=RTOL, atol=ATOL)


def _place(got: np.ndarray, right: np.ndarray) -> str:
    """Which entries are wrong, and in which direction the last: what runs backwards goes wrong there first."""
    off = np.argwhere(~np.isclose(got, right, rtol=RTOL, atol=ATOL))
    last = tuple(off[-1])
    nature = "not a finite number" if not np.isfinite(got[last]) else "low" if got[last] < right[last] else "high"
    nature = nature if nature.startswith("not") else f"too {nature}"
    if got.ndim == 0:
        return f"the result is {nature}"
    steps = [int(i[0]) if got.ndim == 1 else tuple(map(int, i)) for i in off]
    if len(steps) == 1:
        return f"step {steps[0]} is {nature}"
    return f"{len(steps)} of {got.size} steps are wrong; look at step {steps[-1]} first, it is {nature}"


def _raised(error: Exception, answer: Callable) -> str:
    """The exception in one line, with the line of the learner's own code."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" (line {lines[-1]} of your cell)" if lines else ""
    message = " ".join(str(error).split())
    message = message if len(message) <= 160 else message[:157] + "…"
    return f"{type(error).__name__}{f': {message}' if message else ''}{where}"


def _described(answer: Any) -> str:
    """A short name of something that should not be there, without an address in it."""
    return repr(answer)[:40] if isinstance(answer, str | int | float | bool) else type(answer).__name__
