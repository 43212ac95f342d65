"""SampleGrid: which pictures there are, what is on them, and that the training does not notice."""

import io
import resource

import jax
import matplotlib.image
import numpy as np
import optax
import pytest
from flax import nnx
from matplotlib.figure import Figure
from small_runs import by_hand, data, make

from artifex_rl import Trainer
from artifex_rl.callbacks import Callback, SampleGrid


def kernel(model, key):
    """The three weights as two grey pictures of 3 × 1 pixels: as they are, and upside down."""
    pixels = model.kernel[...].reshape(3, 1)
    return np.stack([pixels, pixels[::-1]])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_pictures_show_the_model_of_their_step(tmp_path):
    trainer, kept = make(), {}

    class Keeps(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            kept[trainer.step] = np.asarray(trainer.model.kernel[...]).ravel()

    callback = SampleGrid(kernel, tmp_path / "a" / "samples", every_n_steps=2)
    kept[0] = np.asarray(trainer.model.kernel[...]).ravel()
    trainer.fit(data(), 5, [Keeps(), callback])
    steps = (0, 2, 4, 5)
    assert names(tmp_path / "a" / "samples") == [f"step_{step:07d}.png" for step in steps]
    assert callback.path == tmp_path / "a" / "samples" / "step_0000005.png"
    for step in steps:
        sheet = matplotlib.image.imread(tmp_path / "a" / "samples" / f"step_{step:07d}.png")
        first, second = sheet[1:4, 1, 0], sheet[1:4, 3, 0]
        np.testing.assert_allclose(first, np.clip(kept[step], 0, 1), atol=1 / 255)
        np.testing.assert_array_equal(second, first[::-1])


def test_steps_are_counted_by_the_trainer_in_any_loop(tmp_path):
    trainer = make()
    trainer.fit(data(), 10, [SampleGrid(kernel, tmp_path / "calls", 4)], steps_per_call=3)
    assert names(tmp_path / "calls") == [f"step_{step:07d}.png" for step in (0, 6, 9, 10)]
    by_hand(trainer, 5, [SampleGrid(kernel, tmp_path / "hand", 4)])
    assert names(tmp_path / "hand") == [f"step_{step:07d}.png" for step in (12, 15)]


def test_texts_and_figures_are_saved_too(tmp_path):
    make().fit(data(), 1, [SampleGrid(lambda model, key: ["one", "zwei"], tmp_path / "texts")])
    assert (tmp_path / "texts" / "step_0000001.txt").read_text() == "one\nzwei\n"
    make().fit(data(), 1, [SampleGrid(lambda model, key: Figure(figsize=(2, 1)), tmp_path / "figures")])
    picture = matplotlib.image.imread(io.BytesIO((tmp_path / "figures" / "step_0000000.png").read_bytes()))
    assert picture.shape[:2] == (90, 180)


class Noisy(nnx.Module):
    """A model that draws from a stream of its own whenever it is called."""

    def __init__(self):
        self.linear, self.dropout = nnx.Linear(3, 1, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.linear(self.dropout(x))


class Least(Trainer):
    def compute_loss(self, model, batch, key):
        return ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean(), {}


@pytest.mark.slow
def test_the_training_does_not_notice_that_it_is_looked_at_and_the_noise_is_the_same(tmp_path):
    def trained(callbacks):
        model = Noisy()
        trainer = Least(model, nnx.Optimizer(model, optax.sgd(1e-2), wrt=nnx.Param))
        trainer.fit(data(), 4, callbacks, steps_per_call=1)
        return np.asarray(model.linear.kernel[...])

    keys = []

    def show(model, key):
        keys.append(jax.random.key_data(key).tolist())
        return np.asarray(model(data()["x"]))[None]

    bare, watched = trained([]), trained([SampleGrid(show, tmp_path, 1)])
    np.testing.assert_array_equal(watched, bare)
    assert len(keys) == 5 and len({*map(tuple, keys)}) == 1


def test_a_full_disk_costs_a_picture_and_no_training(tmp_path):
    limits, trainer = resource.getrlimit(resource.RLIMIT_FSIZE), make()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.warns(UserWarning, match=r"SampleGrid: cannot save pictures in ") as caught:
            trainer.fit(data(), 2, [SampleGrid(kernel, tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.step == 2 and names(tmp_path) == [] and len(caught) == 1


def test_a_show_that_fails_does_so_before_anything_is_trained(tmp_path):
    trainer = make()
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.fit(data(), 2, [SampleGrid(lambda model, key: 1 / 0, tmp_path)])
    assert caught.value.__notes__[0] == "raised by SampleGrid.on_train_begin" and trainer.step == 0
    with pytest.raises(ValueError, match="show: returned dict, needs a text, texts, images or a Figure"):
        trainer.fit(data(), 2, [SampleGrid(lambda model, key: {}, tmp_path)])
    with pytest.raises(ValueError, match="show: got str"):
        SampleGrid("images")
    with pytest.raises(ValueError, match="every_n_steps: got 0"):
        SampleGrid(kernel, every_n_steps=0)
