"""Checks of what a learner answers: they say what is wrong and where to look, and never what the answer is.

`check("gae")` is the check of that name, and `check("gae")(my_gae)` prints its verdict. A check never raises, so that
a notebook whose exercises are still stubs runs from top to bottom; the verdict on an answer is the same in every run.
Functions to be written are `artifex_rl.lab.exercise.Exercise`; numbers and choices are here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np


class Check:
    """Something to call with an answer. `verdict` is the text, calling prints it."""

    name: str

    def verdict(self, answer: Any) -> str:
        raise NotImplementedError

    def __call__(self, answer: Any) -> None:
        print(f"{self.name}: {self.verdict(answer)}")


def check(name: str | None = None) -> Check | None:
    """The check of this name; without a name, a list of all of them is printed.

    Args:
        name: such as "gae"; see `check()`.

    Returns:
        The check, to be called with the answer: a function for an exercise, a number, or a letter.

    Raises:
        ValueError: there is no check of this name; the message has the names that are close to it.
    """
    known = registered()
    if name is None:
        _print_list(known)
        return None
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "check() lists them all."
        raise ValueError(f"name: got {name!r}, needs the name of a check; {hint}")
    return known[name]


@cache
def registered() -> dict[str, Check]:
    """Every check of the course by its name, in the order of the notebooks.

    Raises:
        ValueError: two checks have one name.
    """
    found: dict[str, Check] = {}
    for topic in _topics().values():
        for made in vars(import_module(f"artifex_rl.lab.exercises.{topic}")).values():
            if isinstance(made, Check):
                if made.name in found:
                    raise ValueError(f"name: got {made.name!r} twice, needs a name of its own for every check")
                found[made.name] = made
    return found


def _topics() -> dict[str, str]:
    return import_module("artifex_rl.lab.exercises").TOPICS


def _print_list(known: Mapping[str, Check]) -> None:
    width = max(map(len, known))
    for number, topic in _topics().items():
        print(f"Notebook {number}, {topic.replace('_', ' ')}")
        for made in vars(import_module(f"artifex_rl.lab.exercises.{topic}")).values():
            if isinstance(made, Check):
                print(f"  {made.name:<{width}}  {getattr(made, 'summary', type(made).__name__.lower())}")


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
            return f"✗ got {described(answer)}, needs a number."
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
            return f"✗ got {described(answer)}, needs one of {', '.join(map(repr, self.explanations))}."
        mark = "✓ right." if chosen == self.right else "✗ not quite."
        return f"{mark} {self.explanations[chosen]}"


def described(answer: Any) -> str:
    """A short name of something that should not be there, without an address in it."""
    return repr(answer)[:40] if isinstance(answer, str | int | float | bool) else type(answer).__name__
