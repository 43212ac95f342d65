"""The base of every trainer: it owns the state, the one compiled step, the loop, and the way to disk and back.

A subclass says what is minimised, in `compute_loss`. Everything else is here, once.
"""

from __future__ import annotations

import abc
import copy
import math
import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array

from artifex_rl.descent import descend
from artifex_rl.loop import prepare, run, train_events
from artifex_rl.metrics import Metrics, PackedMetrics, pack
from artifex_rl.rows import shard_rows, take_rows
from artifex_rl.state import TrainState, Variables

#: Name of the metric, taken out before anyone sees it, that says whether the batch looked right to the device.
PLAUSIBLE = "plausible"


class Started(NamedTuple):
    """Steps under way: where they began, where they will end, and what they will report."""

    before: TrainState
    after: TrainState
    packed: PackedMetrics


class Trainer(abc.ABC):
    """Trains `model` with `optimizer`: `train_step` for one step, `fit` for many.

    The state lives in the model and in the optimizer that are given: after each step both are up to date, and what
    is assigned to them between steps counts. The step is compiled once for each shape of batch. Numbers of the
    config are arguments of it, so that `trainer.config = dataclasses.replace(trainer.config, gamma=0.9)` compiles
    nothing. A step that raises changes nothing.

    Args:
        model: an `nnx.Module`.
        optimizer: `nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)`.
        config: of the class `config_class`; None for its defaults.
        key: a JAX random key or an integer seed. Step n draws from `fold_in(key, n)`.
        mesh: a `jax.sharding.Mesh`: the leading axis of the batch is split over all its devices, the state is copied
            to each. None: one device.
        companions: what else a step may change, and a checkpoint must hold: modules, optimizers or variables that a
            subclass brings along, such as an average of the weights.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `optimizer` was made for another model.
    """

    config_class: ClassVar[type | None] = None
    #: Whether the rows of a batch may be drawn and shuffled one by one, as `fit(..., batch_size=...)` does.
    independent_rows: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "validate" in vars(cls) and "plausible" not in vars(cls):
            cls.plausible = Trainer.plausible  # what an inherited one knows nothing of must not be passed over

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: Any = None,
        *,
        key: Array | int = 0,
        mesh: jax.sharding.Mesh | None = None,
        companions: tuple[Any, ...] = (),
    ):
        self._variables = Variables(model, optimizer, *companions)
        self.model, self.optimizer, self.companions = model, optimizer, companions
        # Of automatic axes: JAX then finds out by itself how each array inside the step is to be split.
        self.mesh = None if mesh is None else jax.sharding.Mesh(mesh.devices, mesh.axis_names)
        self.config = config
        self.key = key
        self.step = 0
        self.should_stop = False
        self.callbacks: tuple[Any, ...] = ()  # of the `fit` that is running
        self.end_step: int | None = None  # where that one ends, if it is known
        self.fitting = False  # whether one is running

        self._compiled_step = jax.jit(self._step)
        self._compiled_steps = jax.jit(self._steps, static_argnames="length")
        self._compiled_evaluate = jax.jit(self._evaluate)

    # What a subclass writes

    @abc.abstractmethod
    def compute_loss(self, model: nnx.Module, batch: Any, key: Array) -> tuple[Array, Metrics]:
        """The scalar to minimise, and scalars to report. Pure: it is traced, and differentiated by `model`.

        `self.config` holds traced numbers here. `batch` is what `prepare` returned.
        """

    def prepare(self, batch: Any) -> Any:
        """Check a batch on the host and bring it into the form that `compute_loss` reads. Nothing has changed yet."""
        return batch

    def validate(self, batch: Any) -> None:  # noqa: B027 (there may be nothing to check)
        """Check the numbers of a batch that `prepare` returned.

        The step is kept only if this raises nothing. It is called while the device computes the step, or not at all
        where `plausible` has found nothing.
        """

    def plausible(self, batch: Any) -> Array | None:
        """Whether `validate` would raise nothing; traced as a part of the step, where a look costs next to nothing.

        It may be false without need: `validate` then looks more closely. None: it has to look each time.
        """
        return None

    def update(self, state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        """The pure update of one `train_step`: here one gradient step. PPO makes it epochs of minibatches."""
        return self.gradient_step(state, batch, key)

    def evaluation_loss(self, parts: tuple[Any, ...], batch: Any, key: Array) -> tuple[Array, Metrics]:
        """What `evaluate` reports, from what `merge` returns in its evaluation mode: here `compute_loss`."""
        return self.compute_loss(parts[0], batch, key)

    # What a subclass calls

    def gradient_step(
        self, state: TrainState, batch: Any, key: Array, max_grad_norm: ArrayLike | None = None
    ) -> tuple[TrainState, Metrics]:
        """One step of the optimizer along the gradient of `compute_loss`; pure.

        Metrics are those of `compute_loss`, "loss", and "grad_norm": the gradient's length before it is cut to
        `max_grad_norm`.
        """
        model, optimizer, *companions = self.merge(state)
        metrics = descend(self.compute_loss, model, optimizer, batch, key, max_grad_norm=max_grad_norm)
        return self.split(model, optimizer, *companions, step=state.step), metrics

    def merge(self, state: TrainState) -> tuple[Any, ...]:
        """A model and an optimizer, and the companions: new objects that hold the values of `state`."""
        return self._variables.merge(state.variables)

    def evaluation_parts(self, state: TrainState) -> tuple[Any, ...]:
        """What `merge` returns, in its evaluation mode: no dropout, running statistics."""
        parts = self.merge(state)
        for part in parts:
            if isinstance(part, nnx.Module):
                part.eval()
        return parts

    def split(self, *parts: Any, step: Array) -> TrainState:
        """The inverse of `merge`."""
        return TrainState(self._variables.split(*parts), step)

    def pure_step(self, state: TrainState, batch: Any, key: Array, config: Any) -> tuple[TrainState, Metrics]:
        """One `train_step` as a pure function of prepared data, for `jit`, `scan` and `vmap` over anything."""
        state, metrics = self._with_config(config).update(state, batch, key)
        return state._replace(step=state.step + jnp.uint32(1)), metrics

    # What a user calls

    @property
    def config(self) -> Any:
        """The settings; assign a changed copy to change them."""
        return self._config

    @config.setter
    def config(self, config: Any) -> None:
        if config is None and self.config_class is not None:
            config = self.config_class()
        if self.config_class is not None and not isinstance(config, self.config_class):
            raise TypeError(f"config: got {type(config).__name__}, needs {self.config_class.__name__}")
        self._config, self._device_config = config, jax.device_put(config)

    @property
    def key(self) -> Array:
        """The random key that every step's own key follows from; an integer may be assigned as a seed."""
        return jax.random.wrap_key_data(self._key_data, impl=self._key_impl)

    @key.setter
    def key(self, key: Array | int) -> None:
        key = jax.random.key(key) if isinstance(key, Integral) else key
        # As plain numbers: a typed key among the arguments of a compiled function costs more than all else there.
        self._key_data, self._key_impl = jax.random.key_data(key), jax.random.key_impl(key)

    @property
    def step(self) -> int:
        """How many steps lie behind."""
        return self._step_count

    @step.setter
    def step(self, step: int) -> None:
        self._step_count, self._device_step = step, jnp.uint32(step)

    @property
    def state(self) -> TrainState:
        """The state of now, as arrays; assign one to go on from there."""
        return TrainState(self._variables.read(), self._device_step)

    @state.setter
    def state(self, state: TrainState) -> None:
        self._variables.write(state.variables)
        self.step = int(state.step)

    def clone(self) -> Self:
        """Another trainer, in the same state and with the same settings, that goes its own way from here.

        It has a model and an optimizer of its own; what is compiled already is compiled for both.
        """
        twin = copy.copy(self)
        twin.model, twin.optimizer, *companions = nnx.clone((self.model, self.optimizer, *self.companions))
        twin.companions, twin.callbacks, twin.end_step = tuple(companions), (), None
        twin._variables = Variables(twin.model, twin.optimizer, *companions)
        return twin

    def train_step(self, batch: Any) -> dict[str, float]:
        """Train on one batch.

        Returns:
            Metrics as floats; "loss" and "grad_norm" are among them.

        Raises:
            ValueError: the batch is not what the trainer needs. Nothing has changed.
            FloatingPointError: the loss is NaN or infinite. Nothing has changed.
        """
        batch = self.prepare(batch)
        started = self._start(self._place(batch))
        if PLAUSIBLE not in started.packed.names:
            self.validate(batch)
        return self._keep(started, batch)[0]

    def evaluate(self, batch: Any) -> dict[str, float]:
        """The loss and metrics of a batch, with the model in its evaluation mode; nothing changes."""
        batch = self._place(prepare(self, batch))
        arguments = (*self.state, batch, self._key_data, self._device_config)
        return self._compiled_evaluate(*arguments).unpack()[0]

    def fit(
        self,
        data: Any,
        steps: int | None = None,
        callbacks: Sequence[Any] = (),
        *,
        batch_size: int | None = None,
        steps_per_call: int | None = None,
        validation: Any = None,
        validate_every: int | None = None,
        **step_arguments: Any,
    ) -> dict[str, np.ndarray]:
        """Train for many steps.

        Args:
            data: one of three. A mapping of arrays is one batch, trained on again and again, or with `batch_size` a
                dataset, of which each step takes the next rows of a permutation that every epoch draws anew. Any
                other iterable gives one batch a step, and is begun again where it ends, if it can be.
            steps: how many, from where the trainer stands now. A callback that restores a later state when training
                begins leaves the rest of them to do: its batches of an iterable are read and passed over. None: to
                the end of the iterable, once.
            callbacks: objects with any of the hooks of `artifex_rl.callbacks.Callback`, such as
                `on_train_batch_end(trainer, metrics, step)`. A hook may set `trainer.should_stop`.
            batch_size: rows of a batch, for a dataset.
            steps_per_call: steps that one compiled call makes of a mapping, about six times as fast as one by one.
                Hooks are then called after the call, once for each of its steps; `trainer.step` says where the model
                stands, at the end of the call. None: 100, or 1 with callbacks.
            validation: a batch as for `evaluate`, a list of batches, whose metrics are averaged by rows, or a
                function `validation(trainer)` that returns metrics. Hooks see them with "val_" before each name.
            validate_every: validate when `trainer.step` is a multiple of this; no compiled call goes beyond. None:
                at the end of each epoch, which is a pass through a dataset or an iterable.
            step_arguments: passed on to `train_step`, such as `reward_fn`; every step is then a call of its own.

        Returns:
            Every metric, one number a step.

        Raises:
            ValueError: `steps` is missing or not positive, or the data does not fit; the message names it.
            Exception: whatever a callback raises, with a note that names it and its hook. Every `on_exception` and
                every `on_train_end` is called before.
        """
        if steps_per_call is None:
            steps_per_call = 1 if callbacks else 100
        arguments = (steps, batch_size, steps_per_call, step_arguments, validation, validate_every)
        return run(self, train_events(self, data, *arguments), callbacks)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write model, optimizer, step, random key and config to the folder `path`, through orbax.

        Raises:
            FileExistsError: `path` exists and `overwrite` is False.
        """
        from artifex_rl.checkpoints import save_trainer  # orbax takes a second to import

        save_trainer(self, path, overwrite=overwrite)

    def restore(self, path: str | os.PathLike) -> None:
        """Go on from what `save` wrote: the steps that follow are those that would have followed, to the bit.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it is of another model, optimizer or config. Nothing has changed.
        """
        from artifex_rl.checkpoints import restore_trainer

        restore_trainer(self, path)

    # How it is done

    def _start(self, batch: Any) -> Started:
        """Begin one compiled step on a prepared batch: the device computes on while Python goes on."""
        before = self.state
        return Started(before, *self._compiled_step(*before, batch, self._key_data, self._device_config))

    def _train_many(self, data: Any, rows: np.ndarray | None, length: int) -> list[dict[str, float]]:
        """`length` compiled steps in one call: on all of `data`, or step i on its `rows[i]`."""
        before = self.state
        arguments = (*before, data, rows, self._key_data, self._device_config)
        return self._keep(Started(before, *self._compiled_steps(*arguments, length=length)))

    def _keep(self, started: Started, batch: Any = None) -> list[dict[str, float]]:
        """Wait for steps, and keep them if their losses turn out to be numbers; `batch` is yet to be validated."""
        before, state, packed = started
        try:
            self._variables.write(state.variables)  # now, while the device still computes them
            metrics = packed.unpack()
            for step, now in enumerate(metrics, start=self.step):
                if not now.pop(PLAUSIBLE, True) and batch is not None:
                    self.validate(batch)
                if not math.isfinite(now["loss"]):
                    raise FloatingPointError(
                        f"loss: got {now['loss']} at step {step}; model and optimizer are as before the call"
                    )
        except BaseException:  # an interrupt, too: half a step is none
            self._variables.write(before.variables)
            raise
        # The counter stays where the next step reads it: to bring a number to the device costs more than to count.
        self._step_count, self._device_step = self.step + len(metrics), state.step
        return metrics

    def _step(self, variables, step, batch, key, config):
        state, metrics = self.pure_step(TrainState(variables, step), batch, self._step_key(key, step), config)
        plausible = self.plausible(batch)
        return state, pack(metrics if plausible is None else {**metrics, PLAUSIBLE: plausible})

    def _step_key(self, key_data, step):
        return jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=self._key_impl), step)

    def _steps(self, variables, step, data, rows, key, config, length):
        def one(state, chosen):
            batch = data if rows is None else take_rows(data, chosen)
            state, metrics = self.pure_step(state, batch, self._step_key(key, state.step), config)
            return state, pack(metrics)

        return jax.lax.scan(one, TrainState(variables, step), rows, length=length)

    def _evaluate(self, variables, step, batch, key, config):
        parts = self.evaluation_parts(TrainState(variables, step))
        loss, metrics = self._with_config(config).evaluation_loss(parts, batch, self._step_key(key, step))
        return pack({**metrics, "loss": loss})

    def _with_config(self, config: Any) -> Trainer:
        """This trainer with another config, traced perhaps: a copy, so that no tracer outlives its trace."""
        bound = copy.copy(self)
        bound._config = config
        return bound

    def _place(self, batch: Any) -> Any:
        return batch if self.mesh is None else shard_rows(batch, self.mesh)
