"""Checks say what is wrong and where to look, the same every time, and never what the answer is."""

from __future__ import annotations

import numpy as np
import pytest

from artifex_rl.lab.checks import Choice, Number, check, registered
from artifex_rl.lab.exercise import FITTED, RIGHT, Exercise
from artifex_rl.lab.exercises import TOPICS
from artifex_rl.lab.exercises import returns_and_advantages as notebook_01
from artifex_rl.lab.exercises.draws import tenths
from artifex_rl.lab.properties import holds, implies
from artifex_rl.rl.returns import compute_gae_advantages

CHOICES = [made for made in registered().values() if isinstance(made, Choice)]


def square(**changes) -> Exercise:
    parts = {
        "name": "square",
        "title": "Squares",
        "minutes": 3,
        "difficulty": "easy",
        "task": "Write `square`.",
        "solution": "def square(x):\n    return x**2",
        "reference": lambda x: x**2,
        "draw": lambda rng, size: {"x": tenths(rng, size)},
        "properties": (
            holds("the square at step {0} is negative", lambda result, inputs: result >= 0),
            implies(
                "−x has another square than x at step {0}",
                lambda inputs: {"x": -inputs["x"]},
                lambda result, inputs: result,
            ),
        ),
        "mistakes": ((lambda x: 2 * x, "that is twice x"),),
    }
    return Exercise(**{**parts, **changes})


# Finding a check


def test_a_check_is_found_by_its_name_and_called_with_the_answer(capsys):
    def my_gae(rewards, values, dones, gamma, lam):
        return compute_gae_advantages(rewards, values, dones, gamma, lam)

    assert check("gae")(my_gae) is None
    assert capsys.readouterr().out == "gae: ✓ right.\n"


def test_an_unknown_name_is_answered_with_those_that_are_close():
    with pytest.raises(ValueError, match=r"'gea'.*did you mean 'gae'"):
        check("gea")
    with pytest.raises(ValueError, match=r"'group_advantage'.*'group_advantages'"):
        check("group_advantage")
    with pytest.raises(ValueError, match=r"check\(\) lists them all"):
        check("xyzzy")


def test_without_a_name_all_checks_are_listed_under_their_notebooks(capsys):
    assert check() is None
    listed = capsys.readouterr().out.splitlines()
    assert [line[9:11] for line in listed if line.startswith("Notebook")] == list(TOPICS)
    assert {line.split()[0] for line in listed if line.startswith("  ")} == set(registered())


def test_two_checks_of_one_name_are_refused(monkeypatch):
    twin = Number("gae", 1.0, "", "")
    monkeypatch.setattr(notebook_01, "twin", twin, raising=False)
    with pytest.raises(ValueError, match=r"'gae' twice"):
        registered.__wrapped__()


# A function to be written


def test_calling_prints_one_verdict_and_returns_nothing(capsys):
    assert square()(lambda x: x * x) is None
    assert capsys.readouterr().out == "square: ✓ right.\n"


@pytest.mark.parametrize("empty", [lambda x: None, lambda x: ...])
def test_nothing_returned_is_not_written_yet(empty):
    assert square().verdict(empty).startswith("… not written yet")


def test_not_implemented_is_not_written_yet():
    def stub(x):
        raise NotImplementedError

    assert square().verdict(stub) == "… not written yet."


def test_a_path_without_a_return_is_named_with_its_case():
    verdict = square().verdict(lambda x: x**2 if len(x) < 3 else None)
    assert verdict.startswith("✗ it returns nothing here")
    assert verdict.count("\n") == 1 and "Seen with x = [" in verdict


def test_an_exception_is_told_with_its_case_and_line():
    def learner(x):
        return [x[i] ** 2 for i in range(2)]

    verdict = square().verdict(learner).split("\n")[0]
    line = learner.__code__.co_firstlineno + 1
    assert verdict.startswith("✗ it raised IndexError: ")
    assert verdict.endswith(f"(line {line} of your cell)")


def test_wrong_arguments_and_long_messages_are_told_in_one_line():
    def learner(x):
        raise ValueError("long\n" * 100)

    assert "TypeError" in square().verdict(lambda: 1)
    told, case = square().verdict(learner).split("\n")
    assert len(told) < 260 and case.startswith("  Seen with")


def test_the_learner_names_the_arguments_and_orders_them_by_name():
    two = square(
        draw=lambda rng, size: {"x": tenths(rng, size), "power": int(rng.integers(1, 4))},
        reference=lambda x, power: x**power,
        properties=(),
        mistakes=(),
    )
    for learner in (lambda base, exponent: base**exponent, lambda power, x: x**power, lambda *a: a[0] ** a[1]):
        assert two.verdict(learner) == RIGHT
    assert two.verdict(lambda exponent, base: base**exponent) != RIGHT


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (lambda x: (x**2)[:, None], "the result has shape (1, 1), needs (1,)"),
        (lambda x: 4.0, "the result has shape (), needs (1,)"),
        (lambda x: "squared", "the result is 'squared', needs an array of numbers"),
        (lambda x: [[1.0], [2.0, 3.0]], "the result is list, needs an array of numbers"),
        (lambda x: object(), "the result is object, needs an array of numbers"),
        (lambda x: x**2 * np.nan, "step 0 is not a finite number"),
        (lambda x: (x**2).astype(int), "whole numbers"),
        (lambda x: x**2 + 1, "step 0 is too high"),
        (lambda x: x**2 - (np.arange(len(x)) == 2) * 1e-2 * x**2, "step 2 is too low"),
        (lambda x: -(x**2), "the square at step 0 is negative"),
        (lambda x: np.maximum(x, 0) ** 2, "−x has another square than x at step 0"),
        (lambda x: 2 * x, "Hint: that is twice x"),
    ],
)
def test_what_is_wrong_is_said(learner, said):
    verdict = square().verdict(learner)
    assert verdict.startswith("✗ ") and said in verdict
    assert "0x" not in verdict


def test_the_first_property_that_fails_is_named_on_the_smallest_case_that_shows_it():
    """Negative and not even: the first is said. Only longer cases show it: the shortest of these is shown."""

    def learner(x):
        return x**2 if len(x) < 3 else -(x**3)

    exercise = square()
    assert "negative" in exercise.verdict(learner)
    assert len(exercise.counterexample(learner)["x"]) == 3


def test_the_case_of_the_verdict_can_be_had_and_the_answer_is_wrong_there():
    exercise = square()
    case = exercise.counterexample(lambda x: 2 * x)
    assert not np.allclose(2 * case["x"], case["x"] ** 2)
    assert str(case["x"].tolist()) in exercise.verdict(lambda x: 2 * x)
    assert exercise.counterexample(lambda x: x**2) is None


def test_the_function_itself_is_wanted():
    assert "needs the function itself" in square().verdict(3.0)


def test_a_hint_is_given_only_where_every_case_agrees_with_the_mistake():
    assert "Hint" not in square().verdict(lambda x: 2 * x if len(x) == 3 else x)


def test_a_table_of_results_is_wrong_on_fresh_cases_and_always_in_the_same_words():
    exercise = square()
    table = {case["x"].tobytes(): case["x"] ** 2 for case in exercise.ladder}
    learner = lambda x: table.get(x.tobytes(), np.zeros(len(x)))  # noqa: E731
    assert {exercise.verdict(learner) for _ in range(5)} == {FITTED}
    first, second = (exercise.counterexample(learner)["x"].tobytes() for _ in range(2))
    assert first not in table and first != second


def test_cases_are_the_same_in_every_exercise_of_one_name_and_others_under_another():
    first, again, other = square().ladder, square().ladder, square(name="cube").ladder
    assert [case["x"].tolist() for case in first] == [case["x"].tolist() for case in again]
    assert [case["x"].tolist() for case in first] != [case["x"].tolist() for case in other]


def test_numpy_jax_lists_and_whole_numbers_are_all_welcome():
    import jax.numpy as jnp

    for learner in (lambda x: jnp.asarray(x) ** 2, lambda x: [float(v) ** 2 for v in x], lambda x: tuple(x * x)):
        assert square().verdict(learner) == RIGHT
    whole = square(draw=lambda rng, size: {"x": rng.integers(1, 9, size).astype(float)})
    assert whole.verdict(lambda x: [int(v) ** 2 for v in x]) == RIGHT


def test_an_answer_that_writes_into_its_inputs_spoils_nothing():
    def learner(x):
        x *= x
        return x

    exercise = square()
    before = [case["x"].tolist() for case in exercise.ladder]
    assert exercise.verdict(learner) == exercise.verdict(learner) == RIGHT
    assert [case["x"].tolist() for case in exercise.ladder] == before


def test_what_the_answer_prints_and_warns_is_not_repeated_a_hundred_times(capsys, recwarn):
    def learner(x):
        print("here")
        return np.log(x * 0) + x**2

    square()(learner)
    assert "here" not in capsys.readouterr().out
    assert not recwarn.list


def test_what_a_learner_can_display_does_not_hold_the_answer():
    number = Number("n", 69.0, too_low="look up", too_high="look down")
    choice = Choice("c", "b", {"a": "no, because", "b": "yes, because"})
    assert "69" not in repr(number)
    assert "because" not in repr(choice) and "right" not in repr(choice)
    assert "lambda" not in repr(square()) and "x**2" not in repr(square())


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


@pytest.mark.parametrize("quiz", CHOICES, ids=lambda quiz: quiz.name)
def test_one_choice_is_right_and_every_choice_is_explained(quiz):
    verdicts = {choice: quiz.verdict(choice) for choice in quiz.explanations}
    assert [choice for choice, verdict in verdicts.items() if verdict.startswith("✓")] == [quiz.right]
    assert len(set(verdicts.values())) == len(verdicts)
    assert not any(quiz.verdict(empty).startswith(("✓", "✗")) for empty in (None, ...))


# Notebook 01


def test_the_half_life_is_the_first_weight_below_a_half():
    answer = notebook_01.half_life.value
    assert 0.99**answer < 0.5 <= 0.99 ** (answer - 1)


def test_red_leaks_and_blue_is_the_librarys():
    rng = np.random.default_rng(0)
    rewards, values, dones = rng.normal(size=12), rng.normal(size=13), np.arange(12) % 5 == 4
    blue = notebook_01.suspect_blue(rewards, values, dones, 0.9, 0.8)
    np.testing.assert_allclose(blue, compute_gae_advantages(rewards, values, dones, 0.9, 0.8), rtol=1e-4, atol=1e-5)
    changed = rewards + (np.arange(12) > 4)
    for suspect, leaks in ((notebook_01.suspect_red, True), (notebook_01.suspect_blue, False)):
        before, after = (suspect(r, values, dones, 0.9, 0.8)[:5] for r in (rewards, changed))
        assert (not np.allclose(before, after)) == leaks
