"""GuidanceExplorer: pictures of the library's guided flow, and what the scorer says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl import pretrained_flow
from artifex_rl.data import digit_scorer, image_diversity, load_digits_flow, to_pixels
from artifex_rl.lab import GuidanceExplorer
from artifex_rl.lab.guidance_explorer import DRAWN, MEASURED, SIDE, STEPS, WEIGHTS


@pytest.fixture(scope="module")
def explorer():
    return GuidanceExplorer()


def moved(explorer, **knobs):
    explorer.set(**{"weight": 1, "steps": "8", "digit": 5} | knobs)
    return explorer.curves()


def shown(curves):
    """The images, read back from the lengths of the strokes."""
    strokes = curves["pictures"].reshape(DRAWN, SIDE, SIDE, 3)
    return strokes[..., 1] - strokes[..., 0]


@pytest.mark.parametrize(("weight", "steps", "digit"), [(1.0, 4, 5), (2.5, 2, 8), (0.0, 8, 0)])
def test_pictures_are_those_that_a_guided_policy_deploys(explorer, weight, steps, digit):
    """From the same noise: the key of the first rows is that of the explorer."""
    curves = moved(explorer, weight=weight, steps=str(steps), digit=digit)
    policy = pretrained_flow(steps, guidance=weight)
    labels = np.full(MEASURED, digit)
    images = nnx.jit(lambda policy: policy.deploy(labels, jax.random.key(0), method="euler"))(policy)
    np.testing.assert_allclose(shown(curves), to_pixels(images[:DRAWN]), atol=2e-4)
    score, spread = digit_scorer(digit)(images).mean(), image_diversity(images)
    np.testing.assert_allclose(curves["here_score"], [[weight, score]], atol=2e-3)
    np.testing.assert_allclose(curves["here_diversity"], [[weight, spread]], atol=2e-3)


def test_the_markers_stand_on_the_curves(explorer):
    for i, weight in enumerate(WEIGHTS):
        curves = moved(explorer, weight=float(weight), digit=3)
        for name in ("score", "diversity"):
            np.testing.assert_allclose(curves[f"here_{name}"][0], [weight, curves[name][i]], atol=1e-5)


def test_the_grey_lines_are_the_means_of_all_digits(explorer):
    for name in ("score", "diversity"):
        each = [moved(explorer, digit=digit)[name] for digit in range(10)]
        np.testing.assert_allclose(moved(explorer)[f"{name}_all"], np.mean(each, axis=0), atol=1e-5)


def test_a_label_that_counts_more_is_seen_and_costs_diversity(explorer):
    curves = moved(explorer)
    score, spread = curves["score_all"], curves["diversity_all"]
    assert score[0] == pytest.approx(0.1, abs=1e-3)  # without a label all ten draw the same
    assert score[4] > 0.9 and score[8] > 0.98 and (np.diff(score) > -0.01).all()
    assert spread[0] > spread[4] > spread[8]
    ignored = [shown(moved(explorer, weight=0, digit=digit)) for digit in (1, 7)]
    np.testing.assert_allclose(*ignored, atol=1e-5)


def test_one_step_draws_the_mean_of_its_digits(explorer):
    """Euler's single step goes to E[x₁]: all pictures of a digit are nearly one."""
    blurred, sharp = (moved(explorer, steps=steps)["diversity_all"][4] for steps in ("1", "8"))
    assert blurred < 0.75 * sharp


class Deaf(nnx.Module):
    """Velocities to a sheet as grey as its label is high."""

    def __call__(self, x, times, labels):
        told = jnp.full(len(x), 4.5) if labels is None else labels
        return (told / 9 - x.mean(axis=(1, 2)))[:, None, None] * jnp.ones_like(x)


def test_it_takes_a_flow_and_a_reward_of_ones_own():
    explorer = GuidanceExplorer(Deaf(), lambda images, labels: to_pixels(images).mean(axis=(1, 2)))
    low, high = (explorer.set(digit=digit) or explorer.curves()["score"] for digit in (0, 9))
    assert high[4] > low[4] and high[-1] > high[4] and low[0] == pytest.approx(high[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((nnx.Linear(3, 3, rngs=nnx.Rngs(0)),), "velocity: cannot be asked with labels"),
        ((lambda x, t, c: x[:, 0],), "velocity: got function, needs an nnx.Module"),
        ((None, lambda images, labels: images), "reward: answers (120, 8, 8), needs (120,)"),
    ],
)
def test_what_cannot_be_asked_is_named(arguments, said):
    with pytest.raises(ValueError) as caught:
        GuidanceExplorer(*arguments)
    assert str(caught.value).startswith(said)


def test_the_weights_and_steps_have_a_stop_each(explorer):
    weight, steps, _ = explorer.controls
    assert weight.stops == tuple(WEIGHTS) and steps.names == tuple(map(str, STEPS))
    assert isinstance(load_digits_flow(), nnx.Module)
