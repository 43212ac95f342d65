"""Checks of exercises accept what is right, know every mistake, and never give the answer away."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from artifex_rl.lab.checks import Choice, Exercise, Number
from artifex_rl.lab.exercises import returns_and_advantages as exercises
from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages, compute_td_errors

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "01_returns_and_advantages.ipynb"
CELLS = nbformat.read(NOTEBOOK, 4).cells
OF_NOTEBOOK = {name: check for name, check in vars(exercises).items() if isinstance(check, Exercise)}
MISTAKES = [
    pytest.param(check, wrong, hint, id=f"{name}-{i}")
    for name, check in OF_NOTEBOOK.items()
    for i, (wrong, hint) in enumerate(check.mistakes)
]


def tagged(tag: str, kind: str) -> list[str]:
    return [cell.source for cell in CELLS if tag in cell.metadata.get("tags", []) and cell.cell_type == kind]


def defined(sources: list[str]) -> dict:
    """The functions that these cells define; the checks they call print to nobody."""
    scope = {"np": np, "exercises": exercises}
    for source in sources:
        exec(source, scope)
    return {name: scope[name] for name in OF_NOTEBOOK}


def solutions() -> dict:
    blocks = [re.findall(r"```python\n(.*?)```", source, re.DOTALL) for source in tagged("solution", "markdown")]
    return defined([block for found in blocks for block in found])


def square(**changes) -> Exercise:
    parts = {
        "name": "square",
        "reference": lambda x: x**2,
        "cases": {"small": {"x": np.array([1.0, 2.0, 3.0])}, "large": {"x": np.array([17.0, 19.0])}},
        "mistakes": ((lambda x: 2 * x, "that is twice x"),),
    }
    return Exercise(**{**parts, **changes})


# The notebook's exercises


def test_the_notebook_has_three_exercises_each_with_its_solution():
    assert len(OF_NOTEBOOK) == len(tagged("solution", "markdown")) == len(tagged("exercise", "code")) == 3


@pytest.mark.parametrize("name", OF_NOTEBOOK)
def test_the_collapsed_solution_is_right(name):
    assert OF_NOTEBOOK[name].verdict(solutions()[name]) == "✓ right."


@pytest.mark.parametrize("name", OF_NOTEBOOK)
def test_the_stub_is_not_written_yet_and_raises_nothing(name):
    assert OF_NOTEBOOK[name].verdict(defined(tagged("exercise", "code"))[name]).startswith("… not written yet")


@pytest.mark.parametrize(("check", "wrong", "hint"), MISTAKES)
def test_every_known_mistake_gets_its_own_hint(check, wrong, hint):
    assert check.verdict(wrong).endswith(f"Hint: {hint}")
    assert sum(hint == other for _, other in check.mistakes) == 1


@pytest.mark.parametrize(("check", "wrong", "hint"), MISTAKES)
def test_no_verdict_holds_the_expected_numbers(check, wrong, hint):
    """A verdict names a case, which may say n = 2, and a step; past these no number is left but those of the hint."""
    verdict = check.verdict(wrong)
    for case in check.cases:
        verdict = verdict.replace(f"“{case}”", "")
    place = verdict.split("\n")[0]
    place = re.sub(r"\d+ of \d+ steps|step \d+", "", place)
    assert not re.search(r"\d", place)
    assert not re.search(r"\d\.\d", hint)


def test_the_references_are_the_library():
    """Written twice on purpose, so that a slip in one is seen in the other."""
    for inputs in exercises.returns_of_episodes.cases.values():
        expected = compute_discounted_returns(inputs["rewards"], inputs["gamma"], inputs["dones"])
        np.testing.assert_allclose(exercises.returns_of_episodes.reference(**inputs), expected, rtol=1e-5)
    for inputs in exercises.td_errors_with_time_limit.cases.values():
        got = exercises.td_errors_with_time_limit.reference(**inputs)
        np.testing.assert_allclose(got, compute_td_errors(**inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", exercises.n_step_advantages.cases)
def test_gae_is_the_weighted_mean_of_the_n_step_estimates(case):
    """Schulman et al. (2016), eq. 16: (1 − λ) Σ λⁿ⁻¹ Â⁽ⁿ⁾, with the last weights on the longest estimate."""
    inputs = {name: value for name, value in exercises.n_step_advantages.cases[case].items() if name != "n"}
    lam, most = 0.7, 200
    estimates = [exercises.n_step_advantages.reference(**inputs, n=n) for n in range(1, most + 1)]
    mean = (1 - lam) * sum(lam ** (n - 1) * estimate for n, estimate in enumerate(estimates, 1))
    np.testing.assert_allclose(mean, compute_gae_advantages(**inputs, gae_lambda=lam), rtol=1e-4, atol=1e-5)


def test_red_leaks_and_blue_is_the_librarys():
    rng = np.random.default_rng(0)
    rewards, values, dones = rng.normal(size=12), rng.normal(size=13), np.arange(12) % 5 == 4
    blue = exercises.suspect_blue(rewards, values, dones, 0.9, 0.8)
    np.testing.assert_allclose(blue, compute_gae_advantages(rewards, values, dones, 0.9, 0.8), rtol=1e-4, atol=1e-5)
    changed = rewards + (np.arange(12) > 4)
    for suspect, leaks in ((exercises.suspect_red, True), (exercises.suspect_blue, False)):
        before, after = (suspect(r, values, dones, 0.9, 0.8)[:5] for r in (rewards, changed))
        assert (not np.allclose(before, after)) == leaks


def test_the_half_life_is_the_first_weight_below_a_half():
    answer = exercises.half_life.value
    assert 0.99**answer < 0.5 <= 0.99 ** (answer - 1)


@pytest.mark.parametrize("quiz", [check for check in vars(exercises).values() if isinstance(check, Choice)])
def test_one_choice_is_right_and_every_choice_is_explained(quiz):
    verdicts = {choice: quiz.verdict(choice) for choice in quiz.explanations}
    assert [choice for choice, verdict in verdicts.items() if verdict.startswith("✓")] == [quiz.right]
    assert len(set(verdicts.values())) == len(verdicts)
    assert not any(quiz.verdict(empty).startswith(("✓", "✗")) for empty in (None, ...))


# Any exercise


def test_calling_prints_one_verdict_and_returns_nothing(capsys):
    assert square()(lambda x: x * x) is None
    assert capsys.readouterr().out == "square: ✓ right.\n"


@pytest.mark.parametrize("empty", [lambda x: None, lambda x: ...])
def test_nothing_returned_is_not_written_yet(empty):
    assert square().verdict(empty).startswith("… not written yet")


def test_not_implemented_is_not_written_yet():
    def stub(x):
        raise NotImplementedError

    assert square().verdict(stub).startswith("… not written yet")


def test_a_path_without_a_return_is_named():
    assert "“large”" in square().verdict(lambda x: x**2 if len(x) == 3 else None)


def test_an_exception_is_told_with_its_case_and_line():
    def learner(x):
        return [x[i] for i in range(3)]

    verdict = square().verdict(learner)
    line = learner.__code__.co_firstlineno + 1
    assert verdict.startswith("✗ in the case “large” it raised IndexError: ")
    assert verdict.endswith(f"(line {line} of your cell)")


def test_wrong_arguments_and_long_messages_are_told_in_one_line():
    def learner(x):
        raise ValueError("long\n" * 100)

    assert "TypeError" in square().verdict(lambda y: y)
    assert "\n" not in square().verdict(learner)
    assert len(square().verdict(learner)) < 260


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (lambda x: (x**2)[:, None], "shape (3, 1), needs (3,)"),
        (lambda x: 4.0, "shape (), needs (3,)"),
        (lambda x: "squared", "'squared', needs an array of numbers"),
        (lambda x: [[1.0], [2.0, 3.0]], "list, needs an array of numbers"),
        (lambda x: object(), "object, needs an array of numbers"),
        (lambda x: x**2 * np.nan, "not a finite number"),
        (lambda x: (x**2 * 0.9).astype(int), "whole numbers"),
        (lambda x: x**2 + 1, "step 2 first, it is too high"),
        (lambda x: x**2 - (x == 2), "step 1 is too low"),
        (lambda x: 2 * x, "Hint: that is twice x"),
    ],
)
def test_what_is_wrong_is_said(learner, said):
    verdict = square().verdict(learner)
    assert verdict.startswith("✗ in the case “small”") and said in verdict
    assert "0x" not in verdict


def test_the_function_itself_is_wanted():
    assert "needs the function itself" in square().verdict(3.0)


def test_a_hint_is_given_only_where_every_case_agrees_with_the_mistake():
    assert "Hint" not in square().verdict(lambda x: 2 * x if len(x) == 3 else x)


def test_numpy_jax_lists_and_whole_numbers_are_all_welcome():
    import jax.numpy as jnp

    for learner in (
        lambda x: jnp.asarray(x) ** 2,
        lambda x: [float(v) ** 2 for v in x],
        lambda x: [int(v) ** 2 for v in x],
    ):
        assert square().verdict(learner) == "✓ right."


def test_an_answer_that_writes_into_its_inputs_spoils_nothing():
    def learner(x):
        x *= x
        return x

    check = square()
    assert check.verdict(learner) == check.verdict(learner) == "✓ right."
    assert check.cases["small"]["x"].tolist() == [1.0, 2.0, 3.0]


def test_what_a_learner_can_display_does_not_hold_the_answer():
    number = Number("n", 69.0, too_low="look up", too_high="look down")
    choice = Choice("c", "b", {"a": "no, because", "b": "yes, because"})
    assert "69" not in repr(number)
    assert "because" not in repr(choice) and "right" not in repr(choice)
    assert "lambda" not in repr(square())


# Numbers and choices


def test_a_number_is_hinted_at_from_both_sides():
    number = Number("n", 69, too_low="more", too_high="less", mistakes=((100, "the horizon"),))
    assert number.verdict(69) == number.verdict(np.float32(69)) == "✓ right."
    assert number.verdict(68) == "✗ too low. Hint: more"
    assert number.verdict(70) == "✗ too high. Hint: less"
    assert number.verdict(100).endswith("the horizon")
    assert number.verdict(None) == number.verdict(...) == "… no answer yet."
    assert "needs a number" in number.verdict("many") and "finite" in number.verdict(float("nan"))
    assert Number("n", 0.5, "", "", tolerance=0.01).verdict(0.505) == "✓ right."


def test_a_choice_is_explained_when_it_is_made_and_not_before():
    choice = Choice("c", "b", {"a": "no, because", "b": "yes, because"})
    assert choice.verdict(" B ") == "✓ right. yes, because"
    assert choice.verdict("a") == "✗ not quite. no, because"
    assert choice.verdict(None) == "… no answer yet."
    assert choice.verdict("z") == "✗ got 'z', needs one of 'a', 'b'."
    with pytest.raises(ValueError, match="right"):
        Choice("c", "z", {"a": "no"})
