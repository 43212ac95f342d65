"""What learners get wrong, and what the checker then says: for the teacher's edition.

The wrong functions are those that an exercise's check knows. Nothing here repeats its words: every wrong function,
every wrong letter and every wrong number is put to the check, and what it says is what a teacher reads. So a hint
that changes, or no longer appears, changes the edition.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from functools import cache, singledispatch

from artifex_rl.lab.checks import Check, Choice, Number, check, registered
from artifex_rl.lab.exercise import Exercise

#: `check("gae")(mine)`, or, for all suspects of a diagnosis, `check(f"ppo_{name}")(answer)`.
ASKED = re.compile(r"""\bcheck\(\s*(?:"(\w+)"|f"(\w+_)\{[^"]*\}")\s*\)\(""")


def expected_mistakes(source: str) -> str | None:
    """For a code cell that calls checks: the wrong answers that are expected there, as Markdown.

    Args:
        source: of the cell.

    Returns:
        What each check says to each wrong answer; None where the cell calls no check.

    Raises:
        ValueError: the cell calls a check that there is not.
    """
    names: list[str] = []
    for name, stem in ASKED.findall(source):
        names += (
            [name]
            if name
            else [
                other
                for other, made in registered().items()
                if isinstance(made, Choice) and re.fullmatch(f"{stem}[a-z]+", other)
            ]
        )
    return "\n\n".join(map(_of_check, dict.fromkeys(names))) or None


@cache
def _of_check(name: str) -> str:
    return _mistakes(check(name))


@singledispatch
def _mistakes(asked: Check) -> str:
    raise ValueError(f"check: got {type(asked).__name__}, needs an exercise, a choice or a number")


@_mistakes.register
def _(asked: Exercise) -> str:
    rows = ["| | the checker says | and hints |", "|---|---|---|"]
    code = []
    for number, (wrong, _) in enumerate(asked.mistakes, 1):
        said, _, hint = asked.verdict(wrong).partition("\n  Hint: ")
        rows.append(f"| {number} | {_in_cell(said.splitlines()[0])} | {_in_cell(hint)} |")
        code.append(f"# {number}\n{source_of(wrong, asked.name)}")
    return "\n\n".join(
        [
            f"**Expected mistakes** in `{asked.name}`",
            "\n".join(rows),
            "<details><summary>What was written to get them</summary>",
            "Names that begin with an underscore, and what is imported, are in "
            f"`{asked.draw.__module__.replace('.', '/')}.py`.",
            "```python\n" + "\n\n".join(code) + "\n```",
            "</details>",
        ]
    )


@_mistakes.register
def _(asked: Choice) -> str:
    rows = ["| answer | the checker says |", "|---|---|"]
    rows += [f"| **{letter}** | {_in_cell(asked.verdict(letter))} |" for letter in asked.explanations]
    return f"**Answers** to `{asked.name}`\n\n" + "\n".join(rows)


@_mistakes.register
def _(asked: Number) -> str:
    far = 1e3 * (abs(asked.value) + asked.tolerance)
    answers = {
        f"{asked.value:g}": asked.value,
        **{f"{wrong:g}": wrong for wrong, _ in asked.mistakes},
        "less": asked.value - far,
        "more": asked.value + far,
    }
    rows = ["| answer | the checker says |", "|---|---|"]
    rows += [f"| {shown} | {_in_cell(asked.verdict(number))} |" for shown, number in answers.items()]
    return f"**Answers** to `{asked.name}`\n\n" + "\n".join(rows)


def source_of(function: Callable, name: str) -> str:
    """The code of a function, a lambda as if it had been written with `def` and this name.

    What a function was made with (the variables around it) precedes it, one assignment a line.
    """
    function = inspect.unwrap(function)
    module = inspect.getsource(sys.modules[function.__module__])
    node = _node(function, module)
    around = inspect.getclosurevars(function).nonlocals.items()
    given = [f"{key} = {_written(value, module)}" for key, value in around]
    if isinstance(node, ast.FunctionDef):
        body = textwrap.dedent(" " * node.col_offset + ast.get_source_segment(module, node))
    else:
        body = f"def {name}({ast.unparse(node.args)}):\n    return {_expression(node, module)}"
    return "\n".join([*given, body])


def _expression(node: ast.Lambda, module: str) -> str:
    """What a lambda returns, in brackets where it has several lines."""
    first, *others = ast.get_source_segment(module, node.body).splitlines()
    if not others:
        return first
    inner = textwrap.indent("\n".join([first, textwrap.dedent("\n".join(others))]), " " * 8)
    return f"(\n{inner}\n    )"


def _written(value: object, module: str) -> str:
    if inspect.isfunction(value) and value.__name__ == "<lambda>":
        return ast.unparse(_node(value, module))
    return getattr(value, "__name__", repr(value))


def _node(function: Callable, module: str) -> ast.Lambda | ast.FunctionDef:
    code = function.__code__
    for node in ast.walk(ast.parse(module)):  # outer functions come before those inside them
        if isinstance(node, ast.Lambda | ast.FunctionDef) and node.lineno == code.co_firstlineno:
            arguments = [argument.arg for argument in node.args.args]
            if arguments == list(code.co_varnames[: code.co_argcount]):
                return node
    raise ValueError(f"function: got {function}, needs one that is written in {function.__module__}")


def _in_cell(text: str) -> str:
    """One line of a Markdown table: no bar, no line break, and nothing that is taken for emphasis or a formula."""
    return re.sub(r"([|*$<])", r"\\\1", " ".join(text.split()))
