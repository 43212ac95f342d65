"""Every exercise of the course: stubs fail, solutions pass, mistakes get their hints, nothing else gets through."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifex_rl.lab.answers import call, quiet
from artifex_rl.lab.checks import check, registered
from artifex_rl.lab.exercise import FITTED, RIGHT, Exercise, _agree, _seen
from artifex_rl.lab.exercises import TOPICS
from artifex_rl.lab.exercises import returns_and_advantages as notebook_01
from artifex_rl.lab.properties import Trial
from artifex_rl.rl.returns import compute_gae_advantages

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
EXERCISES = {name: made for name, made in registered().items() if isinstance(made, Exercise)}
#: Those that are differentiated: running one takes a hundred times as long as running NumPy.
SLOW = {"policy_gradient_loss", "clipped_surrogate_loss"}
MISTAKES = [
    pytest.param(exercise, wrong, hint, id=f"{name}-{i}", marks=[pytest.mark.slow] * (i > 2 and name in SLOW))
    for name, exercise in EXERCISES.items()
    for i, (wrong, hint) in enumerate(exercise.mistakes)
]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
every_exercise_slowly = pytest.mark.parametrize(
    "exercise",
    [pytest.param(made, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, made in EXERCISES.items()],
)
every_mistake = pytest.mark.parametrize(("exercise", "wrong", "hint"), MISTAKES)


def run_cell(source: str, **scope) -> dict:
    scope = {"np": np, "jnp": jnp, "jax": jax, "check": check, **scope}
    exec(source, scope)
    return scope


def solution(exercise: Exercise, source: str | None = None):
    return run_cell(source or exercise.solution)[exercise.name]


def changed(exercise: Exercise, change):
    """The reference with its results changed: `change(array)` of what it returns, whatever that is."""

    def wrong(*arguments):
        result = exercise.reference(*arguments)
        if isinstance(result, list):
            return [change(np.asarray(part, float)) for part in result]
        return change(jnp.asarray(result) if exercise.name in SLOW else np.asarray(result, float))

    return wrong


def trials(exercise: Exercise, answer) -> list[Trial]:
    """As the exercise makes them: where the answer is wrong."""
    found = [exercise._attempt(answer, inputs) for inputs in exercise.ladder]
    again = lambda inputs: exercise._attempt(answer, inputs)  # noqa: E731
    return [
        Trial(inputs, results, right, again)
        for inputs, results, right in zip(exercise.ladder, found, exercise.expected, strict=True)
    ]


# What the learner meets


@every_exercise
def test_the_stub_is_not_written_yet_and_raises_nothing(exercise, capsys):
    run_cell(exercise.cells(1)[1].source)
    assert capsys.readouterr().out.startswith(f"{exercise.name}: … not written yet")


@pytest.mark.slow
@every_exercise
def test_the_collapsed_solution_is_right(exercise):
    (source,) = re.findall(r"```python\n(.*?)```", exercise.cells(1)[2].source, re.DOTALL)
    answer = run_cell(source)[exercise.name]
    assert {exercise.verdict(answer) for _ in range(3)} == {RIGHT}


@every_exercise
def test_the_box_says_what_how_long_and_how_hard(exercise):
    box, stub, solved = exercise.cells(2, before="## Exercises")
    assert box.source.startswith("## Exercises\n\n> **Exercise 2 · ")
    assert f"{exercise.minutes} minutes  ·  {exercise.difficulty}" in box.source
    assert f"`{exercise.name}`" in box.source
    assert exercise.difficulty in ("easy", "medium", "harder") and 3 <= exercise.minutes <= 20
    assert f"def {exercise.signature}:\n    ...\n" in stub.source
    assert f"def {exercise.signature}:" in solved.source
    assert [cell.metadata["tags"] for cell in (box, stub, solved)] == [["exercise"], ["exercise"], ["solution"]]
    assert max(len(line) for cell in (box, stub, solved) for line in cell.source.splitlines()) <= 120


@pytest.mark.parametrize("number", [number for number in TOPICS if list(NOTEBOOKS.glob(f"{number}_*.ipynb"))])
def test_a_notebook_shows_its_exercises_as_they_are(number):
    """The texts live with the exercise; what a notebook holds is a copy."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, 4).cells
    shown = [
        (cells[i - 2], cells[i - 1], cell)
        for i, cell in enumerate(cells)
        if "solution" in cell.metadata.get("tags", [])
    ]
    assert len(shown) == 3
    for place, (box, stub, solved) in enumerate(shown, 1):
        name = re.search(r'check\("(\w+)"\)', stub.source)[1]
        made = EXERCISES[name].cells(place)
        assert box.source.endswith(made[0].source)
        assert (stub.source, solved.source) == (made[1].source, made[2].source)


# What the check knows


@pytest.mark.slow
@every_exercise_slowly
def test_the_reference_has_every_property_and_fresh_cases_do_not_trouble_it(exercise):
    for trial in trials(exercise, exercise.reference):
        for rule in exercise.properties:
            assert rule.broken_in(trial) is None, rule.name
    assert exercise.verdict(exercise.reference) == RIGHT


def shapes(inputs) -> tuple:
    """With the names and whole numbers, such as a size of groups, for which the library compiles anew."""
    return tuple(value if isinstance(value, str | int) else np.shape(value) for value in inputs.values())


#: Their rewards check the numbers that they are made of, which compiled code cannot.
NOT_COMPILED = {"composite_reward", "threshold_reward", "gated_reward"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "exercise",
    [made for name, made in EXERCISES.items() if name not in SLOW | NOT_COMPILED],
    ids=lambda made: made.name,
)
def test_the_library_s_answers_are_compiled_once_for_each_shape(exercise):
    """Operation by operation they were some hundred programs, and a first check took ten seconds."""
    jax.clear_caches()
    compiled = []
    listen = lambda event, _, **of: event.endswith("backend_compile_duration") and compiled.append(of)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for inputs in exercise.ladder:
            exercise._run(exercise.reference, inputs)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= len(set(map(shapes, exercise.ladder))), compiled


@pytest.mark.slow
@every_exercise
def test_every_property_is_one_that_can_fail(exercise):
    """Some known mistake, or the reference with a number added, breaks it."""
    wrongs = [wrong for wrong, _ in exercise.mistakes] + [changed(exercise, lambda x: x + 0.7)]
    left = list(exercise.properties)
    with quiet():
        for wrong in wrongs:
            made = trials(exercise, wrong)
            left = [rule for rule in left if not any(map(rule.broken_in, made))]
    assert not [rule.name for rule in left]


@pytest.mark.slow
@every_mistake
def test_every_known_mistake_gets_its_own_hint_and_always_the_same_text(exercise, wrong, hint):
    """And the text holds no result: there is a sentence, the arguments as they were given, and a hint."""
    verdict, case = exercise._examine(wrong)
    said, seen, hinted = verdict.split("\n")
    assert said.startswith("✗ ") and hinted == f"  Hint: {hint}"
    assert f"\n{seen}" == _seen(case)
    assert not re.search(r"\d\.\d|\[\d+,|array", said) and not re.search(r"\d\.\d", hint)
    assert exercise.verdict(wrong) == verdict
    assert sum(hint == other for _, other in exercise.mistakes) == 1


@pytest.mark.slow
@every_exercise
def test_something_else_than_was_asked_for_is_told_as_that(exercise):
    """Whatever comes back, the verdict is about the answer, and no error of the check itself."""
    for strange in (
        object(),
        "text",
        3 + 4j,
        {"a": 1},
        [[1, 2], [3]],
        [None],
        lambda: 1,
        np.zeros((2, 2, 2)),
        (1, "a"),
    ):
        verdict = exercise.verdict(lambda *arguments, strange=strange: strange)
        assert verdict.startswith("✗ ") and "raised" not in verdict


@every_exercise
def test_four_mistakes_at_least_are_known(exercise):
    assert len(exercise.mistakes) >= 4 and len(exercise.properties) >= 2


# What does not get through


@every_exercise
@pytest.mark.parametrize("constant", [0, 1.0, -0.5, np.nan, [], [0.0] * 3, "answer", True, {}])
def test_a_constant_is_wrong(exercise, constant):
    verdict = exercise.verdict(lambda *arguments: constant)
    assert verdict.startswith("✗ ") and exercise.verdict(lambda *arguments: constant) == verdict


@pytest.mark.slow
@every_exercise
@pytest.mark.parametrize("fill", [0.0, 1.0, 0.37])
def test_a_constant_of_the_right_shape_is_wrong(exercise, fill):
    assert exercise.verdict(changed(exercise, lambda x: 0 * x + fill)).startswith("✗ ")


@pytest.mark.slow
@pytest.mark.parametrize(  # the table of an exercise that is differentiated would have to be differentiable
    "exercise", [pytest.param(made, id=name) for name, made in EXERCISES.items() if name not in SLOW]
)
@pytest.mark.parametrize("otherwise", ["zeros", "the nearest case"])
def test_a_table_of_all_cases_that_are_always_the_same_is_wrong(exercise, otherwise):
    table = [(list(inputs.values()), call(exercise.reference, inputs)) for inputs in exercise.ladder]

    def distance(arguments, others):
        same_shape = all(
            np.shape(a) == np.shape(b) and type(a) is type(b) for a, b in zip(arguments, others, strict=True)
        )
        if not same_shape:
            return np.inf
        pairs = [(a, b) for a, b in zip(arguments, others, strict=True) if not isinstance(a, str | None)]
        missed = sum(a != b for a, b in zip(arguments, others, strict=True) if isinstance(a, str))
        return missed + sum(np.sum(~np.isclose(a, b, equal_nan=True)) for a, b in pairs)

    def learner(*arguments):
        distances = [distance(arguments, others) for others, _ in table]
        best = int(np.argmin(distances))
        if distances[best] == 0 or (otherwise != "zeros" and np.isfinite(distances[best])):
            return table[best][1]
        return _zeros(exercise, arguments)

    with quiet():
        verdicts = {exercise.verdict(learner) for _ in range(2)}
    assert verdicts == {FITTED}


def _zeros(exercise, arguments):
    result = exercise.reference(*arguments)
    return [0 * part for part in result] if isinstance(result, list) else np.zeros(np.shape(result))


@pytest.mark.slow
@every_exercise_slowly
@settings(max_examples=5)
@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 3.0), relative=st.booleans())
def test_a_result_that_is_off_in_one_place_is_wrong(exercise, seed, size, relative):
    """In one entry in every case, or by a factor in all of them."""

    def off(x):
        if relative:
            return x * (1 + size)
        place = np.random.default_rng(seed).integers(max(x.size, 1))
        return x + size * (np.arange(x.size) == place).reshape(x.shape)

    assert exercise.verdict(changed(exercise, off)).startswith("✗ ")


SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Gt: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.BitAnd: ast.BitOr,
    ast.Invert: ast.UAdd,
    ast.USub: ast.UAdd,
}
NAMES = {"mean": "sum", "sum": "mean", "minimum": "maximum", "var": "std", "std": "var", "min": "max", "exp": "log1p"}


def mutants(source: str) -> list[str]:
    """The source with one thing changed: an operator, a number, a function, two branches, or two arguments."""
    found = []
    for i, _ in enumerate(ast.walk(ast.parse(source))):
        for change in (_swap, _count, _rename, _branches, _arguments):
            tree = ast.parse(source)
            node = list(ast.walk(tree))[i]
            if change(node):
                found.append(ast.unparse(tree))
    return found


def _swap(node):
    field = next((name for name in ("op", "ops") if hasattr(node, name)), None)
    if field is None:
        return False
    old = getattr(node, field)
    new = SWAPS.get(type(old[0] if isinstance(old, list) else old))
    if new is None:
        return False
    setattr(node, field, [new()] if isinstance(old, list) else new())
    return True


def _count(node):
    if not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        return False
    node.value += 1
    return True


def _rename(node):
    if not (isinstance(node, ast.Attribute) and node.attr in NAMES):
        return False
    node.attr = NAMES[node.attr]
    return True


def _branches(node):
    if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "where"):
        return False
    node.args[1:] = node.args[:0:-1]
    return True


def _arguments(node):
    if not (isinstance(node, ast.BinOp) and type(node.op) in (ast.Sub, ast.Div)):
        return False
    node.left, node.right = node.right, node.left
    return True


@pytest.mark.slow
@every_exercise_slowly
def test_a_solution_with_one_thing_changed_is_right_only_where_it_still_is(exercise):
    """A mutant that passes must agree with the reference on a hundred cases that the check has not seen."""
    rng = np.random.default_rng(0)
    unseen = [exercise.draw(rng, int(rng.choice(exercise.sizes))) for _ in range(100)]
    right = None
    rejected = 0
    for source in mutants(exercise.solution):
        answer = solution(exercise, source)
        with quiet():
            if exercise.verdict(answer) != RIGHT:
                rejected += 1
                continue
            right = right or [exercise._run(exercise.reference, inputs) for inputs in unseen]
            mine = [exercise._run(answer, copy.deepcopy(inputs)) for inputs in unseen]
        assert all(map(_agree, mine, right)), source
    assert rejected >= 2


# What is written twice, and checked


@pytest.mark.parametrize("i", range(0, 40, 5))
def test_gae_is_the_weighted_mean_of_the_n_step_estimates(i):
    """Schulman et al. (2016), eq. 16: (1 − λ) Σ λⁿ⁻¹ Â⁽ⁿ⁾, with the last weights on the longest estimate."""
    case = notebook_01.n_step_advantages.ladder[i]
    inputs = {name: value for name, value in case.items() if name != "n"}
    lam, most = 0.7, 120
    estimates = [notebook_01.n_step_advantages.reference(**inputs, n=n) for n in range(1, most + 1)]
    mean = (1 - lam) * sum(lam ** (n - 1) * estimate for n, estimate in enumerate(estimates, 1))
    np.testing.assert_allclose(mean, compute_gae_advantages(**inputs, gae_lambda=lam), rtol=1e-4, atol=1e-5)
