"""What a widget of a notebook asks for when it is dragged is what it was when it was made.

Its functions read the notebook's names. A later cell that binds one of them anew would change the curves under a
learner's hand, after the whole notebook has run; nbval, which drags each explorer where it was made, sees nothing.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
#: What is called later: of an explorer its curves and its words (the figure is drawn once), of a panel everything.
LATER = {"Explorer": (1, 3, "curves", "describe"), "LiveTraining": None}


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def read_later(code: CodeType) -> set[str]:
    """The notebook's names that a function reads whenever it is called."""
    steps = (step for part in codes(code) for step in dis.get_instructions(part))
    return {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}


def bound(code: CodeType) -> set[str]:
    """The names that a cell binds."""
    return {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}


def defined(source: str) -> dict[str, CodeType]:
    """The functions and lambdas of a cell that have a name."""
    cell = compile(source, "cell", "exec")
    found = {code.co_name: code for code in cell.co_consts if isinstance(code, CodeType)}
    for line in ast.parse(source).body:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda() as function):
                found[name] = compile(ast.Expression(function), "lambda", "eval")
    return found


def changed(sources: list[str]) -> list[tuple[int, str, int]]:
    """(cell of a widget, a name that it reads when it is dragged, a later cell that binds the name anew)."""
    binds = [bound(compile(source, "cell", "exec")) for source in sources]
    functions: dict[str, CodeType] = {}
    found = []
    for cell, source in enumerate(sources):
        functions |= defined(source)
        for call in ast.walk(ast.parse(source)):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in LATER):
                continue
            arguments = {**dict(enumerate(call.args)), **{word.arg: word.value for word in call.keywords}}
            kept = LATER[call.func.id] or tuple(arguments)
            parts = [node for name in kept if name in arguments for node in ast.walk(arguments[name])]
            waiting = {node.id for node in parts if isinstance(node, ast.Name)} & functions.keys()
            reads = set().union(*(read_later(compile(ast.Expression(node), "lambda", "eval"))
                                  for node in parts if isinstance(node, ast.Lambda)))  # fmt: skip
            followed: set[str] = set()
            while waiting or reads & functions.keys() - followed:
                name = (waiting or reads & functions.keys() - followed).pop()
                waiting.discard(name)
                if name not in followed:
                    followed.add(name)
                    reads |= read_later(functions[name])
            before = set().union(*binds[: cell + 1])
            for later in range(cell + 1, len(sources)):
                found += [(cell, name, later) for name in sorted(reads & before & binds[later])]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_later_cell_changes_what_a_widget_reads(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = changed([cell.source for cell in cells])
    assert [(cells[widget].id, name, cells[later].id) for widget, name, later in found] == []


def test_a_name_that_is_bound_anew_is_found():
    words = "def words(knobs, curves):\n    return help(knobs) + str([table[i] for i in range(3)])"
    make = "explorer = Explorer(controls, lambda a: {'line': a * scale}, figure, words)"
    cells = ["table, scale = [1, 2, 3], 2", "def help(knobs):\n    return prefix", "prefix = 'a'", words, make]
    assert changed(cells) == []
    for name in ("table", "scale", "prefix"):
        assert changed([*cells, f"{name} = 0"]) == [(4, name, 5)]
        assert changed([*cells, f"for {name} in range(3):\n    pass"]) == [(4, name, 5)]
    assert changed([*cells, "other = [table for table in range(3)]", "def f(scale):\n    prefix = scale"]) == []
