"""The ring of Gaussians: where its modes are, how its samples fall, and how they are counted."""

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from artifex_rl.data.ring import count_modes, ring_centres, sample_ring


def test_the_centres_lie_evenly_on_the_circle():
    centres = np.asarray(ring_centres())
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 2, rtol=1e-6)
    np.testing.assert_allclose(centres[[0, 2, 4, 6]], [[2, 0], [0, 2], [-2, 0], [0, -2]], atol=1e-6)
    neighbours = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1)
    np.testing.assert_allclose(neighbours, 4 * np.sin(np.pi / 8), rtol=1e-6)  # the chord of an eighth


@pytest.mark.parametrize("setting", [{}, {"num_modes": 5, "radius": 1.0, "std": 0.1}])
def test_its_own_samples_cover_all_modes_evenly_and_lie_within_three_standard_deviations(setting):
    found = count_modes(sample_ring(40_000, jax.random.key(0), **setting), **setting)
    modes = setting.get("num_modes", 8)
    assert found.covered == modes and found.counts.shape == (modes,)
    # The distance of a normal point in the plane is Rayleigh's: P(r < 3) = 1 − exp(−9/2).
    assert found.high_quality == pytest.approx(1 - np.exp(-4.5), abs=0.002)
    assert chisquare(found.counts).pvalue > 1e-3


@pytest.mark.slow
def test_a_mode_has_the_standard_deviation_that_is_asked_for():
    samples = np.asarray(sample_ring(50_000, jax.random.key(1), num_modes=1, radius=3.0, std=0.5))
    np.testing.assert_allclose(samples.mean(axis=0), [3, 0], atol=0.01)
    np.testing.assert_allclose(np.cov(samples.T), 0.25 * np.eye(2), atol=0.005)


def test_counting_by_hand():
    # One in the middle of the first mode, one just within and one just beyond three deviations, one at the centre.
    samples = [[2, 0], [2.0599, 0], [2.0601, 0], [0, 0], [0, -2]]
    found = count_modes(samples)
    assert found.covered == 2 and found.high_quality == pytest.approx(3 / 5)
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 0, 1, 0]
    assert count_modes(samples, std=0.1).counts.tolist() == [3, 0, 0, 0, 0, 0, 1, 0]
    assert count_modes([[0.0, 0.0]]) == (0, 0.0, pytest.approx(np.zeros(8)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: count_modes(np.zeros((3, 3))), r"samples: got shape \(3, 3\)"),
        (lambda: count_modes(np.zeros((0, 2))), r"samples: got shape \(0, 2\)"),
        (lambda: count_modes([[np.nan, 0]]), "finite"),
        (lambda: ring_centres(0), "num_modes=0"),
        (lambda: ring_centres(8, -1.0), r"radius=-1\.0"),
        (lambda: sample_ring(0, jax.random.key(0)), "num_samples=0"),
        (lambda: sample_ring(3, jax.random.key(0), std=0.0), r"std=0\.0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
