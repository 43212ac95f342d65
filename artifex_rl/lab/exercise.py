"""Functions for a learner to write, and how they are examined.

An answer first meets a ladder of small cases, the same in every run: where it fails, the verdict names the first of
the exercise's properties that does not hold, on the smallest case that shows it. So one answer always gets one text.
Only an answer that is right on the whole ladder meets cases that nobody has seen before; no table of results passes.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from artifex_rl.lab.answers import Results, Told, call, measure, quiet, raised
from artifex_rl.lab.checks import Check, described
from artifex_rl.lab.properties import Property, Trial, is_finite, same, where_wrong, written

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: Cases of each size on the ladder, and how many fresh ones. A size more is a compilation more for code in JAX.
SIZES, EACH, FRESH = (1, 2, 3, 5, 8), 8, 24

RIGHT = "✓ right."
UNWRITTEN = "… not written yet."
RETURNS_NOTHING = f"{UNWRITTEN} (Written, but it returns nothing? Then the return is missing.)"
FITTED = (
    "✗ right on the cases that are the same every time, and wrong on fresh ones: it fits some numbers, not the rule. "
    "`.counterexample(...)` of this check returns a case."
)


@dataclass(frozen=True)
class Exercise(Check):
    """A function to be written.

    Args:
        name: of the function, as the learner writes it, and of the check.
        title: of the box.
        minutes: that it takes.
        difficulty: "easy", "medium" or "harder".
        task: Markdown, what is to be written.
        solution: Python, the function.
        remark: Markdown, what is worth knowing once it is solved.
        reference: the library's own function, with the arguments that `draw` makes, in their order.
        draw: `draw(rng, size)` makes the arguments of a case, as a dict in the order of the signature.
        properties: what the results must satisfy, the most telling first; see `artifex_rl.lab.properties`. That they
            equal the reference's comes last and need not be listed.
        mistakes: pairs of a wrong function and a hint, given where the learner's results are those of the wrong
            function on the whole ladder.
        axes: what the axes of the result count.
        measure: how a function is run on a case; see `artifex_rl.lab.answers`.
        sizes: of the cases, small ones first.
    """

    name: str
    title: str
    minutes: int
    difficulty: str
    task: str = field(repr=False)
    solution: str = field(repr=False)
    reference: Callable = field(repr=False)
    draw: Callable[[np.random.Generator, int], dict[str, Any]] = field(repr=False)
    remark: str = field(default="", repr=False)
    properties: tuple[Property, ...] = field(default=(), repr=False)
    mistakes: tuple[tuple[Callable, str], ...] = field(default=(), repr=False)
    axes: tuple[str, ...] = field(default=("step",), repr=False)
    measure: Callable[[Callable, Mapping[str, Any]], Results] = field(default=measure, repr=False)
    sizes: tuple[int, ...] = field(default=SIZES, repr=False)

    # What the notebook shows ------------------------------------------------------------------------------------

    @property
    def signature(self) -> str:
        """Such as `gae(rewards, values, dones, gamma, gae_lambda)`."""
        return f"{self.name}({', '.join(self.ladder[0])})"

    @property
    def stub(self) -> str:
        """The code cell to be filled in, with its check."""
        return f'def {self.signature}:\n    ...\n\n\ncheck("{self.name}")({self.name})'

    @property
    def summary(self) -> str:
        """One line for a list of exercises."""
        return f"exercise: {self.title}, {self.minutes} minutes, {self.difficulty}"

    def cells(self, number: int, before: str = "") -> list[NotebookNode]:
        """Box, stub and collapsed solution, tagged as `artifex_rl.lab.editions` needs them.

        Args:
            number: of the exercise in its notebook.
            before: Markdown that precedes the box in its cell, such as a heading.
        """
        from nbformat.v4 import new_code_cell, new_markdown_cell

        head = f"**Exercise {number} · {self.title}**  ·  {self.minutes} minutes  ·  {self.difficulty}"
        box = "\n".join(f"> {line}".rstrip() for line in [head, "", *self.task.strip().splitlines()])
        solved = [f"```python\n{self.solution.strip()}\n```", *filter(None, [self.remark.strip()])]
        parts = [f"<details><summary>Solution of exercise {number}</summary>", *solved, "</details>"]
        place = f"exercise-{number}"
        return [
            new_markdown_cell("\n\n".join(filter(None, [before.strip(), box])), id=place, metadata=_tags("exercise")),
            new_code_cell(self.stub, id=f"{place}-stub", metadata=_tags("exercise")),
            new_markdown_cell("\n\n".join(parts), id=f"{place}-solution", metadata=_tags("solution")),
        ]

    # How an answer is examined ----------------------------------------------------------------------------------

    def verdict(self, answer: Any) -> str:
        return self._examine(answer)[0]

    def counterexample(self, answer: Any) -> dict[str, Any] | None:
        """The arguments of the case that the verdict speaks of, to try the answer on; None where it is right."""
        return self._examine(answer)[1]

    @cached_property
    def ladder(self) -> list[dict[str, Any]]:
        """The cases that are the same in every run, small ones first."""
        seed = zlib.crc32(self.name.encode())
        return [self.draw(np.random.default_rng([seed, size, i]), size) for size in self.sizes for i in range(EACH)]

    @cached_property
    def expected(self) -> list[Results]:
        """The reference's results on the ladder."""
        return [self._run(self.reference, inputs) for inputs in self.ladder]

    def _examine(self, answer: Any) -> tuple[str, dict[str, Any] | None]:
        if not callable(answer):
            return f"✗ got {described(answer)}, needs the function itself: its name without brackets.", None
        with quiet():
            try:
                self._examine_on_ladder(answer)
                return self._examine_on_fresh_cases(answer)
            except Told as told:
                return told.verdict, told.inputs

    def _examine_on_ladder(self, answer: Callable) -> None:
        found = [self._attempt(answer, inputs) for inputs in self.ladder]
        missing = [results is None for results in found]
        if all(missing):
            raise Told(RETURNS_NOTHING)
        if any(missing):
            inputs = self.ladder[missing.index(True)]
            raise Told(f"✗ it returns nothing here: does every path end in a return?{_seen(inputs)}", inputs)
        for inputs, results, right in zip(self.ladder, found, self.expected, strict=True):
            problem = _misshapen(results, right)
            if problem:
                raise Told(f"✗ {problem}.{_seen(inputs)}", inputs)
        if not all(map(_agree, found, self.expected)):
            inputs, sentence = self._first_failure(answer, found)
            hint = self._hint(found)
            stop = "" if sentence.endswith("?") else "."
            raise Told(f"✗ {sentence}{stop}{_seen(inputs)}" + (f"\n  Hint: {hint}" if hint else ""), inputs)

    def _examine_on_fresh_cases(self, answer: Callable) -> tuple[str, dict[str, Any] | None]:
        rng = np.random.default_rng()
        for _ in range(FRESH):
            inputs = self.draw(rng, int(rng.choice(self.sizes[1:])))
            right = self._run(self.reference, inputs)
            try:
                results = self._attempt(answer, inputs)
            except Told:
                return FITTED, inputs
            if results is None or _misshapen(results, right) or not _agree(results, right):
                return FITTED, inputs
        return RIGHT, None

    def _first_failure(self, answer: Callable, found: list[Results]) -> tuple[dict[str, Any], str]:
        """The smallest case on which the first property that fails does so, and the sentence that says it."""
        trials = [
            Trial(inputs, results, right, lambda changed: self._attempt(answer, changed))
            for inputs, results, right in zip(self.ladder, found, self.expected, strict=True)
            if not _agree(results, right)
        ]
        last = Property("equal to the library's", lambda trial: where_wrong(trial, self.axes))
        for rule in (Property("finite", lambda trial: is_finite(trial, self.axes)), *self.properties, last):
            for trial in trials:
                sentence = rule.broken_in(trial)
                if sentence:
                    return trial.inputs, sentence
        raise AssertionError("the results differ from the reference's, and no property says where")

    def _hint(self, found: list[Results]) -> str | None:
        for mistake, hint in self.mistakes:
            if all(_agree(self._run(mistake, inputs), mine) for inputs, mine in zip(self.ladder, found, strict=True)):
                return hint
        return None

    def _attempt(self, answer: Callable, inputs: Mapping[str, Any]) -> Results | None:
        """The learner's results; None where nothing came back."""
        try:
            return self._run(answer, inputs)
        except NotImplementedError as error:
            raise Told(UNWRITTEN) from error
        except Told:
            raise
        except Exception as error:
            raise Told(f"✗ it raised {raised(error, answer)}{_seen(inputs)}", dict(inputs)) from error

    def _run(self, function: Callable, inputs: Mapping[str, Any]) -> Results | None:
        """On fresh copies: an answer that writes into its inputs harms nobody."""
        return self.measure(lambda **arguments: call(function, arguments), copy.deepcopy(dict(inputs)))


def _agree(results: Results, others: Results) -> bool:
    return results.keys() == others.keys() and all(same(results[part], others[part]) for part in results)


def _misshapen(results: Results, right: Results) -> str | None:
    for part, expected in right.items():
        got = results.get(part)
        if got is None or got.dtype == object:
            kind = described(got.item() if got is not None and got.ndim == 0 else got)
            return f"{part} is {kind}, needs {'a number' if expected.ndim == 0 else 'an array of numbers'}"
        if got.shape != expected.shape:
            return f"{part} has shape {got.shape}, needs {expected.shape}"
    return None


def _seen(inputs: Mapping[str, Any]) -> str:
    return f"\n  Seen with {', '.join(f'{name} = {written(value)}' for name, value in inputs.items())}"


def _tags(*tags: str) -> dict[str, list[str]]:
    return {"tags": list(tags)}
