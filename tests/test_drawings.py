"""What is said of drawings in a notebook: real digits are read, squares are not, and shapes are checked."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from artifex_rl.data.digits import image_diversity, load_digits
from artifex_rl.lab.drawings import draw_row, measure_drawings
from artifex_rl.lab.halftone import draw_halftone, halftone, halftone_columns


def test_real_digits_are_read_and_squares_are_not():
    images, labels = load_digits().heldout
    said = measure_drawings(np.stack([images, np.ones_like(images)]), labels)
    real, square = ({name: values[i] for name, values in said.items()} for i in range(2))
    assert real["judge"] > 0.97 and real["scorer"] > 0.9 and 0.28 < real["ink"] < 0.34
    assert real["diversity"] == pytest.approx(float(image_diversity(images)), rel=1e-4)
    assert square["judge"] < 0.15 and square["ink"] == 1 and square["diversity"] == 0


def test_sets_are_measured_one_by_one():
    images, labels = (part[:40] for part in load_digits().heldout)
    sets = np.stack([images, images[::-1], np.ones_like(images)])[:, None]
    said = measure_drawings(sets, labels)
    assert all(values.shape == (3, 1) for values in said.values())
    for i, images in enumerate(sets[:, 0]):
        alone = measure_drawings(images, labels)
        assert all(said[name][i, 0] == pytest.approx(alone[name], abs=1e-5) for name in said)


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (4, 8, 9), (2, 5, 8, 8)])
def test_drawings_that_do_not_fit_their_labels_are_refused(shape):
    with pytest.raises(ValueError, match="images: got shape"):
        measure_drawings(np.zeros(shape), np.zeros(4, int))


def test_a_row_shows_ink_in_black_on_white_paper():
    axes = Figure().subplots()
    images = np.stack([np.ones((8, 8)), -np.ones((8, 8))])
    draw_row(axes, images, "two")
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (10, 20) and axes.get_title(loc="center") + axes.get_title(loc="left") == "two"
    assert (shown[1:9, 1:9] == 0).all() and (shown[1:9, 11:19] == 1).all() and shown[0, 0] == pytest.approx(0.55)


def test_a_halftone_draws_each_pixel_as_long_as_it_is_dark():
    images = np.zeros((2, 8, 8), np.float32)
    images[1, 0, 3] = 0.5  # the top row
    strokes = np.asarray(halftone(images)).reshape(2, 8, 8, 3)
    x = halftone_columns(2).reshape(2, 8, 8, 3)
    length = strokes[..., 1] - strokes[..., 0]
    assert np.argwhere(length != 0).tolist() == [[1, 0, 3]] and length[1, 0, 3] == 0.5
    assert strokes[1, 0, 3, :2].mean() == 7 and (x[1, 0, 3] == 13).all() and np.isnan(strokes[..., 2]).all()

    axes = Figure().subplots()
    draw_halftone(axes, strokes.reshape(-1), gid="drawn", width=5.0)
    assert axes.lines[0].get_gid() == "drawn" and axes.lines[0].get_linewidth() == 5.0
