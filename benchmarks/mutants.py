"""Do the tests notice? Breaks the maths and the trainers in one place at a time and runs their tests on each.

    python benchmarks/mutants.py --module returns losses --sample 60 --seed 0
    python benchmarks/mutants.py --module ppo grpo --sample 15     # 15 of each
    python benchmarks/mutants.py --only ppo:17 grpo:42             # as a run has named them

Every mutant lives in a copy of the package in a temporary directory; the working tree is only read. The exit status
is 1 where fewer than 95 % of the mutants turn something red.

Some mutants are the same function and survive rightly: (R − V)² for (V − R)², another finite number for the one that
a `where` puts in the place of what is masked, a gradient through a shift that cancels.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLE = "ppo_learning.py::test_ppo_learns_within_seconds"
# The tests of each module of artifex_rl/rl, or of artifex_rl where it has a slash; those first that fail first.
TESTS = {
    "returns": ["returns", "normalization", "warnings", "arguments", "extremes"],
    "losses": ["losses", "divergences", "preferences", "arguments", "extremes"],
    "reinforce": ["reinforce", "batches", "fixed_points"],
    "ppo": ["ppo"],
    "onpolicy": ["ppo", POLE],
    "grpo": ["grpo", "fixed_points"],
    "dpo": ["dpo", "fixed_points"],
    "preferences": ["dpo", "fixed_points"],
    "references": ["grpo", "fixed_points"],
    "specification": ["forms", "batches", "dpo"],
    "forms": ["forms"],
    "experience": ["batches", "reinforce", "grpo", "ppo"],
    "trainer": ["forms", "batches", "reinforce", "grpo", "ppo"],
    "generative/elbo": ["vae"],
    "generative/adversarial": ["gan"],
    "generative/coupling": ["flow"],
    "generative/energy": ["energy"],
    "generative/flow": ["flow", "flow_policy"],
    "generative/ode": ["flow"],
    "generative/sequences": ["autoregressive"],
    "diffusion/edm": ["diffusion", "diffusion_trainer"],
    "diffusion/predictions": ["diffusion", "diffusion_trainer"],
    "diffusion/process": ["diffusion", "diffusion_policy"],
    "trainers/autoregressive": ["autoregressive"],
    "trainers/diffusion": ["diffusion_trainer"],
    "trainers/energy": ["energy"],
    "trainers/flow": ["flow"],
    "trainers/gan": ["gan"],
    "trainers/guided": ["diffusion_trainer", "flow"],
    "trainers/vae": ["vae"],
}
REQUIRED = 0.95

BINARY = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.Mod: [ast.FloorDiv],
}  # fmt: skip
COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}  # fmt: skip
NAMES = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "sum": "mean", "all": "any", "any": "all",
    "ones": "zeros", "zeros": "ones", "ones_like": "zeros_like", "zeros_like": "ones_like", "expm1": "exp",
    "inf": "nan", "float64": "float32",
}  # fmt: skip
# What may go without a trace, so that a call f(x, …) becomes x: the masks, the clips and the constants' gradients.
TRANSPARENT = {"stop_gradient", "clip", "minimum", "maximum", "broadcast_to", "relu", "log_sigmoid", "sqrt", "exp"}
# Keyword arguments with a default that is wrong.
KEYWORDS = {"where", "reverse", "axis", "dtype", "name"}


@dataclass(frozen=True)
class Mutant:
    module: str
    number: int
    source: str
    diff: str

    def __str__(self) -> str:
        return f"{self.module}:{self.number}"


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that one slip of the pen could have made of this node."""
    if isinstance(node, ast.BinOp):
        yield from (ast.BinOp(node.left, other(), node.right) for other in BINARY.get(type(node.op), []))
        yield node.left
        yield node.right
        if isinstance(node.op, ast.Sub | ast.Div | ast.Pow):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        others = COMPARISONS.get(type(node.ops[0]), [])
        yield from (ast.Compare(node.left, [other()], node.comparators) for other in others)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, other_constants(node.value))
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in NAMES and isinstance(node.ctx, ast.Load):
            changed = copy.copy(node)
            setattr(changed, "id" if isinstance(node, ast.Name) else "attr", NAMES[name])
            yield changed
    elif isinstance(node, ast.Subscript):
        yield node.value
    elif isinstance(node, ast.Call):
        yield from other_calls(node)


def other_constants(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return {0: [1], 1: [0, 2], -1: [0, 1]}.get(value, [value + 1, value * 1000])
    words = [("k1", "k2", "k3"), ("group", "batch", "none"), ("sigmoid", "ipo", "hinge", "robust")]
    return [other for family in words if value in family for other in family if other != value]


def other_calls(call: ast.Call) -> Iterator[ast.AST]:
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    if name == "where":
        yield from call.args[1:]
    if name in TRANSPARENT:
        yield call.args[0]
    for i, (one, two) in enumerate(pairwise(call.args)):
        commute = name in ("minimum", "maximum") or (name == "clip" and i == 0)
        if not commute and can_swap(one) and can_swap(two):
            yield ast.Call(call.func, [*call.args[:i], two, one, *call.args[i + 2 :]], call.keywords)
    for i, keyword in enumerate(call.keywords):
        if keyword.arg in KEYWORDS:
            yield ast.Call(call.func, call.args, call.keywords[:i] + call.keywords[i + 1 :])


def can_swap(argument: ast.AST) -> bool:
    """Not where any test at all would fail: a name, a shape or a type in the place of a number."""
    if isinstance(argument, ast.Constant):
        return not isinstance(argument.value, str)
    return getattr(argument, "attr", None) not in ("shape", "dtype") and not isinstance(argument, ast.Starred)


def is_prose(node: ast.AST) -> bool:
    """Docstrings, annotations and the words of messages are not what the tests are about."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.arg):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "warn"


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Every (parent, field, index) that holds a node of code."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "func"):
            # A function's name is code where NAMES has another for it.
            if field == "func":
                yield node, field, None
                yield from places(value)
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and not is_prose(child):
                yield node, field, index if isinstance(value, list) else None
                yield from places(child)


def path_of(module: str) -> str:
    return f"artifex_rl/{module}.py" if "/" in module else f"artifex_rl/rl/{module}.py"


def mutants_of(module: str) -> list[Mutant]:
    path = path_of(module)
    text = (ROOT / path).read_text()
    tree = ast.parse(text)
    original = ast.unparse(tree)
    sources: dict[str, None] = {}
    for parent, field, index in list(places(tree)):
        holder = getattr(parent, field)
        child = holder if index is None else holder[index]
        deleted = [ast.Pass()] if isinstance(child, ast.Expr | ast.If) else []
        for other in [*replacements(child), *deleted]:
            if index is None:
                setattr(parent, field, other)
            else:
                holder[index] = other
            sources[ast.unparse(tree)] = None
        if index is None:
            setattr(parent, field, child)
        else:
            holder[index] = child
    sources.pop(original, None)
    return [Mutant(module, i, source, difference(path, original, source)) for i, source in enumerate(sources)]


def difference(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, n=0, lineterm="")
    return "\n".join(line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---")))


@dataclass(frozen=True)
class Bench:
    """A directory with the code as it was when the run began, and with what JAX has compiled so far."""

    directory: Path
    time_limit: float

    def prepare(self) -> None:
        for name in ("artifex_rl", "tests"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, self.directory / "code" / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", self.directory / "code")

    def survives(self, mutant: Mutant | None, tests: list[str]) -> tuple[bool, str]:
        """Whether all tests pass on the mutant (None: on the code as it is), and the line that pytest ended with."""
        with tempfile.TemporaryDirectory() as copied:
            shutil.copytree(self.directory / "code", copied, dirs_exist_ok=True)
            if mutant is not None:
                Path(copied, path_of(mutant.module)).write_text(mutant.source)
            # The copy, and nothing that is installed, is what the tests import.
            check = f"import artifex_rl, sys, pytest; assert artifex_rl.__file__.startswith({copied!r}); "
            options = ["-x", "-q", "-p", "no:cacheprovider", "-n", "0", "-o", "addopts=", "--no-header"]
            options += ["--hypothesis-profile=fail-fast", *tests]  # no shrinking: red is red
            environment = os.environ | {
                "PYTHONPATH": copied,
                "PYTHONDONTWRITEBYTECODE": "1",
                # What two mutants have in common is compiled once: it halves the time.
                "JAX_COMPILATION_CACHE_DIR": str(self.directory / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            try:
                run = subprocess.run(
                    [sys.executable, "-c", f"{check}sys.exit(pytest.main({options!r}))"],
                    cwd=copied,
                    env=environment,
                    timeout=self.time_limit,
                    capture_output=True,
                    text=True,
                )
            except subprocess.TimeoutExpired:
                return False, "time limit"
        lines = run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or [""]
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return run.returncode == 0, (failed or lines)[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--module", nargs="+", choices=TESTS, default=list(TESTS), help="mutants of these modules alone"
    )
    parser.add_argument("--sample", type=int, help="how many mutants of each to try, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="MODULE:NUMBER", help="the mutants to try")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=600, help="seconds for one mutant")
    options = parser.parse_args()

    named = [name.split(":") for name in options.only or ()]
    mutants = {module: mutants_of(module) for module in ({module for module, _ in named} or options.module)}
    if named:
        chosen = [mutants[module][int(number)] for module, number in named]
    else:
        chosen = [mutant for each in mutants.values() for mutant in draw(each, options.sample, options.seed)]
    print(f"{len(chosen)} of {sum(map(len, mutants.values()))} mutants", flush=True)
    if options.list:
        for mutant in chosen:
            print(f"--- {mutant}\n{mutant.diff}")
        return 0

    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.time_limit)
        bench.prepare()
        return run_all(bench, chosen, options.processes)


def draw(mutants: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    if size is None or size >= len(mutants):
        return mutants
    return [mutants[i] for i in sorted(random.Random(seed).sample(range(len(mutants)), size))]


def tests_of(module: str) -> list[str]:
    return [f"tests/test_{name if '.py' in name else f'{name}.py'}" for name in TESTS[module]]


def run_all(bench: Bench, chosen: list[Mutant], processes: int) -> int:
    files = sorted({test for mutant in chosen for test in tests_of(mutant.module)})

    def trial(mutant: Mutant) -> tuple[Mutant, bool, str, float]:
        began = time.monotonic()
        alive, line = bench.survives(mutant, tests_of(mutant.module))
        return mutant, alive, line, time.monotonic() - began

    with ThreadPoolExecutor(processes) as pool:
        for file, (passes, line) in zip(
            files, pool.map(lambda file: bench.survives(None, [file]), files), strict=True
        ):
            print(f"{file} on the code as it is: {line}", flush=True)
            if not passes:
                return 2

    survivors, tried = Counter(), Counter(mutant.module for mutant in chosen)
    with ThreadPoolExecutor(processes) as pool:
        for mutant, alive, line, seconds in pool.map(trial, chosen):
            print(f"{'SURVIVED' if alive else 'killed  '} {mutant} {seconds:5.1f} s  {line}", flush=True)
            if alive:
                survivors[mutant.module] += 1
                print(mutant.diff, flush=True)
    for module, number in tried.items():
        print(f"{module}: killed {number - survivors[module]} of {number}")
    rate = 1 - survivors.total() / len(chosen)
    print(f"killed {len(chosen) - survivors.total()} of {len(chosen)}: {rate:.1%}")
    return int(rate < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
