"""DiscriminatorExplorer: closed forms for a discriminator that is a plane, and what the pretrained one pays for."""

import functools
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl import DiscriminatorReward
from artifex_rl.data.digits_gan import load_digits_gan
from artifex_rl.lab import DiscriminatorExplorer
from artifex_rl.lab.discriminator_explorer import (
    BATCH,
    DRAWS,
    LEAST_ERROR,
    MOST_ERROR,
    SHOWN,
    STDS,
    STEP_SIZE,
    STEPS,
    gradient_samples,
    mirrored_noise,
    summarise_gradients,
)
from artifex_rl.lab.halftone import SIDE

WEIGHTS = np.random.default_rng(3).normal(size=(SIDE, SIDE)).astype(np.float32)
LEVEL = 0.7


class Plane(nnx.Module):
    """D(x) = w·x + 0.7."""

    def __init__(self):
        self.w = nnx.Param(jnp.asarray(WEIGHTS))

    def __call__(self, samples):
        return jnp.sum(samples * self.w[...][None], axis=(1, 2)) + LEVEL


GREY = np.zeros((1, SIDE, SIDE), np.float32)
PLANE, DEFAULT = "a plane", "the default"


@functools.cache
def begun(which):
    """The explorer, and how it stands at first: made by the first test, and not by each worker that reads this."""
    explorer = DiscriminatorExplorer(GREY, Plane()) if which == PLANE else DiscriminatorExplorer()
    return explorer, explorer.knobs


def moved(which, **knobs):
    explorer, start = begun(which)
    explorer.set(**{**start, **knobs})
    return explorer.curves()


def shown(curves):
    """The images, read back from the lengths of the strokes."""
    strokes = curves["drawn"].reshape(SHOWN + 1, SIDE, SIDE, 3)
    return strokes[..., 1] - strokes[..., 0]


# A plane


def test_a_step_up_a_plane_is_worth_its_slope():
    score = moved(PLANE)["score"]
    length = np.linalg.norm(WEIGHTS)
    np.testing.assert_allclose(np.diff(score[:5]), length * STEP_SIZE * SIDE, rtol=1e-4)  # no pixel is full yet
    assert score[0] == pytest.approx(LEVEL, abs=1e-6)


@pytest.mark.parametrize("std", [0.05, 0.2, 0.6])
def test_a_plane_pays_in_the_mean_what_it_pays_for_the_mean(std):
    curves = moved(PLANE, std=std)
    np.testing.assert_allclose(curves["paid"], curves["score"], rtol=1e-4, atol=1e-4)
    deviation = (curves["high"] - curves["low"]) / 2
    np.testing.assert_allclose(deviation, std * np.linalg.norm(WEIGHTS), rtol=0.25)  # of 64 draws
    np.testing.assert_allclose(deviation, deviation[0], rtol=1e-3)


def test_the_errors_on_a_plane_are_those_of_the_docstring():
    """Total variances ‖w‖² (d + 1) with a baseline, D² d / σ² more without, none through D; from 64 draws."""
    for push in (0, 10):
        curves, square = moved(PLANE, push=push), float((WEIGHTS**2).sum())
        with_baseline = np.sqrt((64 + 1) / BATCH)
        np.testing.assert_allclose(curves["baseline"], with_baseline, rtol=0.25)
        np.testing.assert_allclose(curves["baseline"], curves["baseline"][0], rtol=2e-3)  # σ does not matter
        level = curves["score"][push]
        plain = np.sqrt((64 + 1 + level**2 * 64 / (STDS**2 * square)) / BATCH)
        np.testing.assert_allclose(curves["plain"], np.clip(plain, LEAST_ERROR, MOST_ERROR), rtol=0.25)
        np.testing.assert_allclose(curves["pathwise"], LEAST_ERROR)


def test_of_many_draws_the_errors_are_closely_those():
    mean, std, square = jnp.zeros((SIDE, SIDE)), 0.3, float((WEIGHTS**2).sum())
    found = summarise_gradients(
        *gradient_samples(DiscriminatorReward(Plane()), mean, jnp.float32(std), mirrored_noise(20000))
    )
    assert float(found["baseline"]) == pytest.approx(np.sqrt((64 + 1) / BATCH), rel=0.02)
    plain = np.sqrt((64 + 1 + LEVEL**2 * 64 / (std**2 * square)) / BATCH)
    assert float(found["plain"]) == pytest.approx(plain, rel=0.02)
    assert float(found["pathwise"]) < 1e-4
    assert float(found["mean"]) == pytest.approx(LEVEL, abs=1e-3)
    assert float(found["deviation"]) == pytest.approx(std * np.sqrt(square), rel=0.02)


def test_the_score_function_is_the_librarys_and_agrees_with_the_slope():
    """∇ log N(x; m, σ²) = (x − m)/σ², and over many draws all three estimates have the mean w."""
    noise = mirrored_noise(20000)
    mean = jnp.full((SIDE, SIDE), 0.1)
    rewards, estimates = gradient_samples(DiscriminatorReward(Plane()), mean, jnp.float32(0.3), noise)
    draws = 0.1 + 0.3 * np.asarray(noise)
    np.testing.assert_allclose(rewards, np.sum(draws * WEIGHTS, axis=(1, 2)) + LEVEL, atol=2e-4)
    np.testing.assert_allclose(estimates["plain"], rewards[:, None, None] * noise / 0.3, rtol=1e-3, atol=1e-3)
    for name, tolerance in (("plain", 0.1), ("baseline", 0.1), ("pathwise", 1e-5)):
        assert np.linalg.norm(estimates[name].mean(axis=0) - WEIGHTS) < tolerance * np.linalg.norm(WEIGHTS)
    assert noise.shape == (20000, SIDE, SIDE) and abs(float(noise.std()) - 1) < 0.01
    np.testing.assert_array_equal(noise[0::2], -noise[1::2])
    assert len(mirrored_noise(DRAWS)) == DRAWS


def test_one_picture_needs_no_choice_of_pictures():
    assert [control.name for control in begun(PLANE)[0].controls] == ["push", "std"]


# The pretrained discriminator


def test_the_curves_are_the_rewards_of_the_pictures_that_are_shown():
    reward = DiscriminatorReward(load_digits_gan()[1])
    for knobs in ({"push": 0}, {"push": 11, "picture": 2, "std": 0.1}, {"push": STEPS, "picture": "noise"}):
        curves = moved(DEFAULT, **knobs)
        picture = shown(curves)[0] * 2 - 1
        assert picture.min() >= -1 - 1e-5 and picture.max() <= 1 + 1e-5
        at = int(curves["here"][0, 0])
        assert at == knobs["push"]
        np.testing.assert_allclose(reward(picture[None])[0], curves["score"][at], atol=2e-3)
        np.testing.assert_allclose(curves["here"][0, 1], curves["score"][at])
        np.testing.assert_allclose(curves["here_paid"][0], [at, curves["paid"][at]])
        column = int(np.argmin(abs(STDS - begun(DEFAULT)[0].std)))
        for name in ("plain", "baseline", "pathwise"):
            np.testing.assert_allclose(curves[f"here_{name}"][0], [STDS[column], curves[name][column]], rtol=1e-5)


def test_uphill_pays_more_than_real_digits_get_and_at_random_less():
    from artifex_rl.data import load_digits

    real = float(DiscriminatorReward(load_digits_gan()[1])(load_digits().train.images).mean())
    for picture in (1, 2, 3, "noise"):
        curves = moved(DEFAULT, picture=picture)
        assert curves["score"][-1] > real + 0.2 and curves["score"][-1] > curves["score"][0] + 0.3
        assert picture == "noise" or curves["random"][-1] < curves["random"][0] - 0.5


def test_more_noise_is_paid_less_and_blurs_nothing_but_the_draws():
    """Where a picture is liked, its neighbours are liked less."""
    paid = [moved(DEFAULT, push=20, std=std)["here_paid"][0, 1] for std in (0.05, 0.2, 0.4, 0.6)]
    assert (np.diff(paid) < 0).all()
    first, second = (shown(moved(DEFAULT, push=20, std=std)) for std in (0.05, 0.6))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[1:] - first[0]).mean() < np.abs(second[1:] - second[0]).mean() / 3


def test_without_a_baseline_the_error_grows_as_the_noise_falls():
    curves = moved(DEFAULT, push=12)
    assert curves["plain"][0] > 4 * curves["baseline"][0]
    assert (curves["pathwise"] < 0.3).all() and (curves["baseline"] > 0.4).all()
    assert "12 steps uphill" in begun(DEFAULT)[0].summary()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((8, 8)), "images: got shape (8, 8)"),
        (np.zeros((7, 8, 8)), "images: got shape (7, 8, 8)"),
        (np.zeros((0, 8, 8)), "images: got shape (0, 8, 8)"),
        (np.full((1, 8, 8), np.nan), "images: got 64 NaN"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(images, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        DiscriminatorExplorer(images, Plane())


def test_what_cannot_be_called_is_no_discriminator():
    with pytest.raises(TypeError, match="discriminator: got int"):
        DiscriminatorExplorer(GREY, 3)
