"""What the results of an exercise must satisfy, each with the sentence that is said where it fails.

A property looks at a trial: the arguments of a case, the learner's results, and a way to run the learner's function
again with something changed. Most of the telling ones are of that kind: change what must not matter, and see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifex_rl.lab.answers import Results

#: The learner may compute in float32. Cases are drawn in tenths, so a mistake shows in the third digit or before.
RTOL, ATOL = 1e-4, 1e-4


@dataclass(frozen=True)
class Trial:
    """An answer on a case. `inputs` are the arguments, `results` and `right` the learner's and the reference's."""

    inputs: dict[str, Any]
    results: Results
    right: Results
    rerun: Callable[[dict[str, Any]], Results | None]

    @property
    def result(self) -> np.ndarray:
        """The first of the results: in most exercises there is one."""
        return next(iter(self.results.values()))

    def again(self, **changes: Any) -> np.ndarray:
        """The same with some arguments changed; NaN where nothing, or something of another shape, came back."""
        results = self.rerun({**self.inputs, **changes})
        found = None if results is None else next(iter(results.values()))
        usable = found is not None and found.shape == self.result.shape and found.dtype != object
        return found if usable else np.full(self.result.shape, np.nan)


@dataclass(frozen=True)
class Property:
    """Args:
    name: in a few words.
    broken_in: from a trial to the sentence that says where the property fails; None where it holds.
    """

    name: str
    broken_in: Callable[[Trial], str | None]


def no_leak(what: str, *changed: str, ends: str = "dones") -> Property:
    """Nothing that comes after the end of an episode moves what came before, or at, its last step.

    Args:
        what: the results' name in the sentence, such as "advantages".
        changed: the arguments in which everything after a done is changed.
        ends: the argument that says where episodes end, `(T,)` or `(T, N)`.
    """

    def test(trial: Trial) -> str | None:
        for t, *column in np.argwhere(trial.inputs[ends]):
            stream = (slice(t + 1, None), *column)
            before = (slice(0, t + 1), *column)
            moved = trial.again(**{name: _moved(trial.inputs[name], stream) for name in changed})
            if not same(moved[before], trial.result[before]):
                of = f" of environment {column[0]}" if column else ""
                return f"your {what} leak across the done at t = {t}{of}: what comes after it changes them"
        return None

    return Property("no leak across a done", test)


def unmoved_by(says: str, change: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> Property:
    """A change of the arguments that must not move the results. `says` may hold {0}, {1}: the entry that moved."""
    return implies(says, change, lambda result, inputs: result)


def implies(
    says: str,
    change: Callable[[dict[str, Any]], Mapping[str, Any] | None],
    then: Callable[[np.ndarray, dict[str, Any]], Any],
) -> Property:
    """With some arguments changed the results are known, from those without the change or from the arguments.

    Args:
        says: the sentence; it may hold {0}, {1}: the index of the first wrong entry.
        change: from the arguments to those that change; None where the property says nothing of this case. NaN in
            `then` says nothing of an entry.
        then: what the results must be, of the results before the change and the arguments.
    """

    def test(trial: Trial) -> str | None:
        changes = change(trial.inputs)
        if changes is None:
            return None
        moved = trial.again(**changes)
        needed = np.broadcast_to(np.asarray(then(trial.result, trial.inputs), float), moved.shape)
        wrong = np.argwhere(~(np.isclose(moved, needed, rtol=RTOL, atol=ATOL) | np.isnan(needed)))
        return says.format(*wrong[0]) if len(wrong) else None

    return Property(says, test)


def holds(says: str, entries: Callable[[np.ndarray, dict[str, Any]], Any]) -> Property:
    """`entries` of the results and the arguments: booleans, true where all is well; {0}, {1} name the first false."""

    def test(trial: Trial) -> str | None:
        wrong = np.argwhere(~np.asarray(entries(trial.result, trial.inputs), bool))
        return says.format(*wrong[0]) if len(wrong) else None

    return Property(says, test)


def no_gradient(name: str, why: str) -> Property:
    """No gradient flows into an argument."""

    def test(trial: Trial) -> str | None:
        flows = np.argwhere(np.abs(trial.results[f"the gradient by {name}"]) > ATOL)
        return f"a gradient flows into {name}[{', '.join(map(str, flows[0]))}]: {why}" if len(flows) else None

    return Property(f"no gradient into {name}", test)


def is_a_mean(*arrays: str) -> Property:
    """Every row twice leaves a mean as it is. `arrays` are the arguments that hold a row for each sample."""
    return unmoved_by(
        "the same samples twice over give another loss: it is to be a mean",
        lambda inputs: {name: np.concatenate([inputs[name]] * 2) for name in arrays},
    )


def sign(says: str, part: str) -> Property:
    """The part is not minus what it should be, everywhere."""

    def test(trial: Trial) -> str | None:
        got, right = trial.results[part], trial.right[part]
        return says if np.abs(right).max(initial=0) > ATOL and same(got, -right) else None

    return Property(f"sign of {part}", test)


def is_finite(trial: Trial, axes: tuple[str, ...]) -> str | None:
    """Numbers where the reference has numbers."""
    for part, got in trial.results.items():
        wrong = np.argwhere(~np.isfinite(got) & np.isfinite(trial.right[part]))
        if len(wrong):
            return f"{_entry(part, wrong[0], axes)} is not a finite number"
    return None


def where_wrong(trial: Trial, axes: tuple[str, ...]) -> str | None:
    """Which entries are wrong, and in which direction the last: what runs backwards goes wrong there first."""
    for part, right in trial.right.items():
        got = trial.results[part]
        off = np.argwhere(~np.isclose(got, right, rtol=RTOL, atol=ATOL, equal_nan=True))
        if not len(off):
            continue
        last = tuple(off[-1])
        nature = "too low" if got[last] < right[last] else "too high" if got[last] > right[last] else "wrong"
        place, others = _entry(part, last, axes), len(off) - 1
        place += f" is {nature}" + (f", and {others} of the {got.size - 1} others are wrong" if others else "")
        if got.dtype.kind in "iub" and not np.array_equal(right, np.round(right)):
            place += (
                ". It holds whole numbers: was it made from an array of whole numbers, such as zeros_like(dones)?"
            )
        return place
    return None


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True))


def written(value: Any) -> str:
    """An argument as one would type it: short, and without the type of its entries."""
    if isinstance(value, np.ndarray):
        return str(np.where(value, 1, 0).tolist() if value.dtype == bool else value.tolist())
    return str(value)


def _entry(part: str, index: Any, axes: tuple[str, ...]) -> str:
    if part != "the result":
        return part + (f" [{', '.join(map(str, index))}]" if len(index) else "")
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=False)) or part


def _moved(array: np.ndarray, where: Any) -> np.ndarray:
    """Another number in each of these entries; a flag is turned around."""
    array = array.copy()
    array[where] = ~array[where] if array.dtype == bool else array[where] + 1.7
    return array
