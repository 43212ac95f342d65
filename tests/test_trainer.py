"""The base trainer: compiled once, resumed to the bit, nothing changed by an error, many steps as one by one."""

import dataclasses
import operator
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import snapshot

from artifex_rl import Trainer
from artifex_rl.configs import config, number
from artifex_rl.metrics import PackedMetrics


@config
class RegressionConfig:
    """Weight decay towards 0."""

    decay: float = number(0.0, low=0)


class Regression(Trainer):
    """Least squares; counts its traces."""

    config_class = RegressionConfig
    traces = 0

    def compute_loss(self, model, batch, key):
        type(self).traces += 1
        error = jnp.mean((model(batch["x"])[:, 0] - batch["y"]) ** 2)
        noise = 0.0 * jax.random.normal(key)
        return error + self.config.decay * jnp.sum(model.linear.kernel[...] ** 2) + noise, {"error": error}


class Network(nnx.Module):
    """Everything that a model may hold: dropout, batch statistics, a bare array."""

    def __init__(self, rate=0.0, seed=0):
        rngs = nnx.Rngs(seed)
        self.linear, self.norm = nnx.Linear(3, 1, rngs=rngs), nnx.BatchNorm(1, rngs=rngs)
        self.dropout, self.shift = nnx.Dropout(rate, rngs=rngs), jnp.ones(3)

    def __call__(self, x):
        return self.norm(self.linear(self.dropout(x + self.shift[None])))


class Line(nnx.Module):
    """The least there is to train, for what a model does not matter to."""

    def __init__(self, seed=0):
        self.linear = nnx.Linear(3, 1, rngs=nnx.Rngs(seed))

    def __call__(self, x):
        return self.linear(x)


def make(rate=None, learning_rate=1e-2, seed=0, cls=Regression, **options):
    model = Line(seed) if rate is None else Network(rate, seed)
    return cls(model, nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param), **options)


def data(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1) + 3}


@pytest.fixture(autouse=True)
def no_traces():
    Regression.traces = 0


@pytest.mark.slow
def test_a_step_is_what_nnx_and_optax_would_do_by_hand():
    batch, trainer, model = data(), make(rate=0.0), Network()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    for _ in range(3):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(batch["x"])[:, 0] - batch["y"]) ** 2))(model)
        norm = np.sqrt(sum(np.sum(np.asarray(g) ** 2) for g in jax.tree.leaves(grads)))
        with jax.numpy_dtype_promotion("standard"):
            optimizer.update(model, grads)
        metrics = trainer.train_step(batch)
        np.testing.assert_allclose([metrics["loss"], metrics["grad_norm"]], [loss, norm], rtol=1e-5)
        assert all(type(value) is float for value in metrics.values()) and metrics["error"] == metrics["loss"]
    # Not the linear bias, nor the running mean that holds it: what follows subtracts the mean, so that the gradient
    # of the bias is rounding noise around 0.
    for part in ("linear.kernel", "norm.scale", "norm.bias", "norm.var"):
        get = operator.attrgetter(part)
        np.testing.assert_allclose(get(trainer.model)[...], get(model)[...], rtol=1e-4)


@pytest.mark.slow
def test_the_users_own_objects_are_up_to_date_after_a_step_and_what_is_assigned_to_them_counts():
    model = Network()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    trainer = Regression(model, optimizer)
    before, statistics = model.linear.kernel[...], model.norm.mean[...]
    trainer.train_step(data())
    assert trainer.model is model and trainer.step == int(optimizer.step[...]) == 1
    assert (model.linear.kernel[...] != before).all() and (model.norm.mean[...] != statistics).all()
    model.linear.kernel[...] = jnp.full((3, 1), jnp.nan)
    with pytest.raises(FloatingPointError, match="loss: got nan at step 1"):
        trainer.train_step(data())


def test_another_number_in_the_config_counts_at_once_and_compiles_nothing():
    trainer, batch = make(), data()
    plain = trainer.evaluate(batch)["loss"]
    trainer.train_step(batch), trainer.fit(batch, steps=4, steps_per_call=2)
    before = Regression.traces
    for decay in (0.5, 1.0, 2):
        trainer.config = dataclasses.replace(trainer.config, decay=decay)
        metrics = trainer.train_step(batch)
        assert metrics["loss"] > metrics["error"]
        trainer.fit(batch, steps=2)
    trainer.config = RegressionConfig(decay=100.0)
    assert trainer.evaluate(batch)["loss"] > plain
    assert Regression.traces == before


@pytest.mark.slow
def test_a_clone_goes_its_own_way_and_shares_what_is_compiled():
    trainer, untouched, batch = make(rate=0.5), make(rate=0.5), data()
    for one in (trainer, untouched):
        one.train_step(batch)
    before, traces = snapshot(trainer), Regression.traces
    twin = trainer.clone()
    twin.config, twin.key = RegressionConfig(decay=0.5), 7
    twin.train_step(batch)
    assert Regression.traces == traces and twin.step == 2
    assert snapshot(trainer) == before and trainer.config.decay == 0.0
    assert trainer.train_step(batch) == untouched.train_step(batch)  # the randomness of its dropout, too, is its own
    assert twin.model is not trainer.model


@pytest.mark.slow
def test_shapes_compile_once_each():
    trainer = make()
    for rows in (4, 8, 4, 8):
        trainer.train_step(data(rows))
    assert Regression.traces == 2


@pytest.mark.slow
def test_many_steps_in_one_call_are_the_steps_one_by_one():
    one, many, batch = make(rate=0.2), make(rate=0.2), data()
    losses = [one.train_step(batch)["loss"] for _ in range(7)]
    history = many.fit(batch, steps=7, steps_per_call=3)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    assert many.step == one.step == 7
    np.testing.assert_allclose(many.model.linear.kernel[...], one.model.linear.kernel[...], rtol=1e-4)


class Drawing(Regression):
    """Reports a number that it draws."""

    def compute_loss(self, model, batch, key):
        return super().compute_loss(model, batch, key)[0], {"drawn": jax.random.uniform(key)}


def test_step_n_draws_from_the_nth_key_whichever_way_it_is_made():
    trainer = make(cls=Drawing, key=5)
    drawn = [trainer.train_step(data())["drawn"] for _ in range(3)]
    drawn += [*trainer.fit(data(), steps=4, steps_per_call=2)["drawn"], trainer.train_step(data())["drawn"]]
    trainer.step = 20
    drawn += [trainer.train_step(data())["drawn"] for _ in range(2)]
    expected = [jax.random.uniform(jax.random.fold_in(jax.random.key(5), n)) for n in (*range(8), 20, 21)]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    assert trainer.step == 22


@pytest.mark.slow
def test_a_dataset_is_cut_into_epochs_in_which_every_row_comes_once():
    rows = []

    class Watching(Regression):
        def compute_loss(self, model, batch, key):
            jax.debug.callback(lambda y: rows.append(np.asarray(y)), batch["y"], ordered=True)
            return super().compute_loss(model, batch, key)

    dataset = data(12)
    trainer = make(cls=Watching)
    trainer.fit(dataset, steps=6, batch_size=4, steps_per_call=1)
    first, second = np.concatenate(rows[:3]), np.concatenate(rows[3:])
    np.testing.assert_allclose(np.sort(first), np.sort(dataset["y"]))
    np.testing.assert_allclose(np.sort(second), np.sort(dataset["y"]))
    assert (first != second).any()


@pytest.mark.slow
def test_the_way_of_calling_does_not_change_the_rows():
    a, b = make(), make()
    one = a.fit(data(12), steps=7, batch_size=4, steps_per_call=1)
    many = b.fit(data(12), steps=7, batch_size=4)
    np.testing.assert_allclose(one["loss"], many["loss"], rtol=1e-5)


def test_an_iterable_is_begun_again_and_a_generator_ends():
    batches = [data(seed=i) for i in range(3)]
    assert len(make().fit(batches)["loss"]) == 3
    assert len(make().fit(batches, steps=7)["loss"]) == 7
    assert len(make().fit((b for b in batches), steps=7)["loss"]) == 3
    assert make().fit(iter([])) == {}


class Diary:
    """Callback that writes down what is called."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def on_train_begin(self, trainer):
        self.calls.append("begin")

    def on_train_batch_end(self, trainer, metrics, step):
        self.calls.append((step, trainer.step, sorted(metrics)))
        trainer.should_stop = step + 1 == self.stop_after

    def on_train_end(self, trainer):
        self.calls.append("end")


NAMES = ["error", "grad_norm", "loss"]


def test_fit_calls_the_guides_hooks():
    diary, trainer = Diary(), make()
    trainer.fit(data(), steps=2, callbacks=[diary, object()])
    assert diary.calls == ["begin", (0, 1, NAMES), (1, 2, NAMES), "end"]
    trainer.fit(data(), steps=2, callbacks=[diary], steps_per_call=2)
    assert diary.calls[4:] == ["begin", (2, 4, NAMES), (3, 4, NAMES), "end"]


def test_a_hook_may_stop_the_training_and_the_end_is_told_even_of_an_error():
    diary, trainer = Diary(stop_after=2), make()
    assert len(trainer.fit(data(), steps=9, callbacks=[diary])["loss"]) == 2
    bad = {**data(), "y": np.full(8, np.nan)}
    with pytest.raises(FloatingPointError):
        trainer.fit([data(), bad], callbacks=[diary])
    assert diary.calls[-1] == "end"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": data()}, ["steps", "None"]),
        ({"data": data(), "steps": 0}, ["steps", "0"]),
        ({"data": data(), "steps": 1.5}, ["steps", "1.5"]),
        ({"data": data(), "steps": True}, ["steps", "True"]),
        ({"data": data(), "steps": 1, "batch_size": 9}, ["batch_size", "9", "8 rows"]),
        ({"data": data(), "steps": 1, "batch_size": -1}, ["batch_size", "-1"]),
        ({"data": {**data(), "y": np.ones(3)}, "steps": 1, "batch_size": 2}, ["data", "[3, 8]"]),
        ({"data": [data()], "batch_size": 2}, ["batch_size", "iterable"]),
        ({"data": 3, "steps": 1}, ["data", "int"]),
        ({"data": data(), "steps": 1, "steps_per_call": 0}, ["steps_per_call", "0"]),
    ],
)
def test_fit_says_what_is_wrong_before_anything_is_called(arguments, words):
    trainer, diary = make(), Diary()
    before = snapshot(trainer)
    with pytest.raises(ValueError) as caught:
        trainer.fit(**arguments, callbacks=[diary])
    assert all(word in str(caught.value) for word in words)
    assert snapshot(trainer) == before and diary.calls == []


def test_a_nan_in_the_middle_of_a_call_takes_the_whole_call_back():
    trainer = make(learning_rate=1e30)
    trainer.config = RegressionConfig(decay=1.0)
    before = snapshot(trainer)
    with pytest.raises(FloatingPointError, match="as before the call"):
        trainer.fit(data(), steps=10)
    assert snapshot(trainer) == before


def test_evaluation_changes_nothing_and_switches_dropout_off():
    trainer, batch = make(rate=0.5), data()
    before = snapshot(trainer)
    metrics = trainer.evaluate(batch)
    assert metrics == trainer.evaluate(batch) and set(metrics) == {"error", "loss"}
    assert snapshot(trainer) == before
    assert metrics["loss"] == make(rate=0.0).evaluate(batch)["loss"]
    assert trainer.model.dropout.deterministic is False


def test_the_same_key_gives_the_same_run_and_another_key_another():
    class Noisy(Regression):
        def compute_loss(self, model, batch, key):
            loss, metrics = super().compute_loss(model, batch, key)
            return loss + jax.random.normal(key), metrics

    runs = [make(cls=Noisy, key=key).fit(data(), steps=3)["loss"] for key in (0, jax.random.key(0), 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all() and len({*np.diff(runs[0])}) == 2


# To disk and back


def test_a_resumed_run_is_the_run_to_the_bit(tmp_path):
    trainer = make(rate=0.3, key=5, config=RegressionConfig(decay=0.1))
    trainer.fit(data(12), steps=3, batch_size=4)
    trainer.save(tmp_path / "run")
    trainer.fit(data(12), steps=4, batch_size=4)

    other = make(rate=0.3, seed=9)
    other.restore(tmp_path / "run")
    assert other.step == 3 and other.config == RegressionConfig(decay=0.1)
    other.fit(data(12), steps=4, batch_size=4)
    assert snapshot(other) == snapshot(trainer)


def test_a_checkpoint_is_not_written_over_unless_told(tmp_path):
    trainer = make()
    trainer.save(tmp_path / "run")
    trainer.train_step(data())
    with pytest.raises(FileExistsError, match="overwrite"):
        trainer.save(tmp_path / "run")
    trainer.save(tmp_path / "run", overwrite=True)
    other = make()
    other.restore(tmp_path / "run")
    assert other.step == 1


class OtherRegression(Regression):
    """Another name."""


def unbiased():
    model = Line()
    model.linear = nnx.Linear(3, 1, use_bias=False, rngs=nnx.Rngs(0))
    return Regression(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param))


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (lambda: make(cls=OtherRegression), ValueError, "checkpoint of Regression, needs one of OtherRegression"),
        (unbiased, ValueError, "variables differ"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, other, error, words):
    make().save(tmp_path / "run")
    trainer = other()
    before = snapshot(trainer)
    with pytest.raises(error, match=words):
        trainer.restore(tmp_path / "run")
    assert snapshot(trainer) == before
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.restore(tmp_path / "nowhere")


# What a trainer is made of


def test_the_parts_are_checked():
    model = Network()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    small = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="model: got function"):
        Regression(lambda x: x, optimizer)
    with pytest.raises(TypeError, match=r"optimizer: got GradientTransformationExtraArgs, needs nnx\.Optimizer"):
        Regression(model, optax.adam(1e-2))
    with pytest.raises(ValueError, match="optimizer: was made for another model"):
        Regression(model, nnx.Optimizer(small, optax.adam(1e-2), wrt=nnx.Param))
    with pytest.raises(ValueError, match="selects nothing"):
        Regression(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Cache))
    with pytest.raises(TypeError, match="config: got dict, needs RegressionConfig"):
        Regression(model, optimizer, {"decay": 1.0})
    with pytest.raises(TypeError, match="compute_loss"):
        Trainer(model, optimizer)


def test_only_what_the_optimizer_is_for_is_trained():
    model = Line()
    is_bias = lambda path, value: isinstance(value, nnx.Param) and "bias" in path  # noqa: E731
    trainer = Regression(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=is_bias))
    kernel, bias = model.linear.kernel[...], model.linear.bias[...]
    trainer.train_step(data())
    np.testing.assert_array_equal(model.linear.kernel[...], kernel)
    assert (model.linear.bias[...] != bias).all()


def test_gradients_are_cut_to_a_length():
    class Cut(Regression):
        def update(self, state, batch, key):
            return self.gradient_step(state, batch, key, max_grad_norm=self.config.decay)

    model, before = Line(), Line().linear.kernel[...]
    trainer = Cut(model, nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param), RegressionConfig(decay=1e-3))
    assert trainer.train_step(data())["grad_norm"] > 0.01
    moved = [model.linear.kernel[...] - before, model.linear.bias[...]]
    np.testing.assert_allclose(np.sqrt(sum((np.asarray(x) ** 2).sum() for x in moved)), 1e-3, rtol=1e-3)


def test_metrics_are_scalars():
    class Wrong(Regression):
        def compute_loss(self, model, batch, key):
            return super().compute_loss(model, batch, key)[0], {"rows": jnp.ones(3)}

    with pytest.raises(ValueError, match=r"metrics: got shapes {'rows': .3,.}, needs scalars"):
        make(cls=Wrong).train_step(data())


@pytest.mark.slow
def test_pure_steps_may_be_vmapped_over_configs():
    trainer, batch = make(), data()
    configs = jax.tree.map(lambda *x: jnp.stack(x), *map(jax.device_put, [RegressionConfig(d) for d in (0.0, 1.0)]))
    step = jax.vmap(trainer.pure_step, in_axes=(None, None, None, 0))
    states, metrics = jax.jit(step)(trainer.state, batch, jax.random.key(0), configs)
    assert metrics["loss"][0] < metrics["loss"][1] and (states.step == 1).all()


EIGHT = """
import jax, numpy as np, sys
sys.path.insert(0, "tests")
from test_trainer import data, make
mesh = jax.make_mesh((8,), ("data",))
one, many = make(), make(mesh=mesh)
for trainer in (one, many):
    trainer.fit(data(16), steps=3, steps_per_call=2)
np.testing.assert_allclose(one.model.linear.kernel[...], many.model.linear.kernel[...], rtol=1e-5)
assert len(many.model.linear.kernel[...].sharding.device_set) == 8
try:
    many.train_step(data(12))
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_eight_devices_make_the_step_of_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    root = os.path.dirname(os.path.dirname(__file__))
    run = subprocess.run(
        [sys.executable, "-c", EIGHT], capture_output=True, text=True, cwd=root, env={**os.environ, **flags}
    )
    assert run.returncode == 0, run.stderr
    assert "12 rows, needs a multiple of the mesh's 8 devices" in run.stdout


def test_an_interrupt_while_the_device_computes_keeps_the_state_from_before(monkeypatch):
    trainer, batch = make(), data()
    trainer.train_step(batch)
    before = jax.tree.map(np.asarray, trainer.state)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(PackedMetrics, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step(batch)
    jax.tree.map(np.testing.assert_array_equal, trainer.state, before)
