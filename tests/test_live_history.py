"""What a live training has seen and draws: buckets, running averages, limits and ticks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifex_rl.lab.history import BUCKETS, History, nice_limits, span, tick_labels

NAMES = ("loss", "episode_return")


def rows(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 2))
    values[::3, 1] = np.nan  # no episode ended in those steps
    return values


@given(cuts=st.lists(st.integers(1, 150), min_size=1, max_size=12))
def test_in_what_chunks_the_rows_came_leaves_no_trace(cuts):
    values = rows(sum(cuts))
    whole, parts, start = History(), History(), 0
    whole.add(NAMES, values)
    for cut in cuts:
        parts.add(NAMES, values[start : start + cut])
        start += cut
    width = max(1, span(len(values)) // BUCKETS)
    assert whole.width == parts.width == width
    for one, other in zip(whole.curves(width), parts.curves(width), strict=True):
        np.testing.assert_array_equal(one, other)  # to the bit
    for name, column in zip(NAMES, values.T, strict=True):
        np.testing.assert_array_equal(parts.series()[name], column)


@pytest.mark.parametrize("count", [1, 2, BUCKETS, BUCKETS + 1, 3 * BUCKETS + 5, 20 * BUCKETS])
def test_a_bucket_is_the_mean_of_its_steps_and_the_smooth_curve_a_running_average(count):
    history, values = History(), rows(count)
    history.add(NAMES, values)
    width = history.width
    means, smooth = history.curves(width)
    assert len(means) == -(-count // width) <= BUCKETS and width & (width - 1) == 0
    for i in range(len(means)):
        part = values[i * width : (i + 1) * width]
        expected = [np.nanmean(column) if np.isfinite(column).any() else np.nan for column in part.T]
        np.testing.assert_allclose(means[i], expected, rtol=0, atol=1e-12)
    for column in range(2):
        total = weight = 0.0
        for mean, drawn in zip(means[:, column], smooth[:, column], strict=True):
            total, weight = 0.85 * total, 0.85 * weight
            if np.isfinite(mean):
                total, weight = total + mean, weight + 1
            assert drawn == pytest.approx(total / weight if weight else np.nan, nan_ok=True, abs=1e-9)


def test_a_fork_keeps_what_was_seen_and_goes_its_own_way():
    history, values = History(), rows(100)
    history.add(NAMES, values[:60])
    twin = history.fork()
    history.add(NAMES, values[60:])
    twin.add(NAMES, -values[60:])
    np.testing.assert_array_equal(history.series()["loss"], values[:, 0])
    np.testing.assert_array_equal(twin.series()["loss"], np.concatenate([values[:60, 0], -values[60:, 0]]))
    assert twin.start == 60


def test_axes_double():
    assert [span(steps) for steps in (0, 1, 20, 21, 40, 41, 1000)] == [20, 20, 20, 40, 40, 80, 1280]


finite = st.floats(-1e7, 1e7, allow_nan=False)


@given(low=finite, high=finite)
def test_limits_hold_the_range_and_their_parts_are_round(low, high):
    low, high = min(low, high), max(low, high)
    bottom, top = nice_limits(low, high)
    room = 1e-6 * max(abs(low), abs(high), 1e-12)
    assert bottom <= low + room and top >= high - room and bottom < top
    step = (top - bottom) / 4
    digits = f"{step:.3e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in {"1", "1.5", "2", "2.5", "3", "4", "5", "6", "8"}
    assert abs(bottom / step - round(bottom / step)) < 1e-6
    if high - low > 1e-6 * max(abs(low), abs(high)):
        assert top - bottom <= 4 * (high - low)  # and the curve is no flat line in them


@given(low=finite, high=finite)
def test_ticks_tell_their_values(low, high):
    bottom, top = nice_limits(min(low, high), max(low, high))
    labels = tick_labels(bottom, top)
    assert len(labels) == len(set(labels)) == 5 and max(map(len, labels)) <= 9
    for label, value in zip(labels, np.linspace(bottom, top, 5), strict=True):
        number = label.replace("−", "-").replace("k", "e3").replace("M", "e6")
        assert float(number) == pytest.approx(value, rel=1e-3, abs=1e-3 * (top - bottom))


def test_ticks_read_well():
    assert tick_labels(0, 500) == ["0", "125", "250", "375", "500"]
    assert tick_labels(-1, 1) == ["−1", "−0.5", "0", "0.5", "1"]
    assert tick_labels(0, 20480) == ["0", "5.12k", "10.24k", "15.36k", "20.48k"]
    assert tick_labels(0, 4e-5) == ["0", "10e-6", "20e-6", "30e-6", "40e-6"]


def test_nothing_seen_has_limits_too():
    assert nice_limits(np.nan, np.nan) == (0.0, 1.0)
    low, high = nice_limits(0.0, 0.0)
    assert low < 0 < high
