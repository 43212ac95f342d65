"""The loop of `Trainer.fit`: what happens in it, one event after the other, and who is told of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from artifex_rl.notices import warn_caller
from artifex_rl.rows import choose_rows, count_rows, take_rows

#: A hook's name and what it is called with after the trainer.
Event = tuple[Any, ...]


def run(trainer: Any, events: Iterator[Event], callbacks: Sequence[Any]) -> dict[str, np.ndarray]:
    """Train as `events` are read, and call the hooks; see `Trainer.fit` and `artifex_rl.callbacks.Callback`.

    An error, a hook's or the training's, is told to every `on_exception`; then every `on_train_end` is called, and
    the error goes on its way. What goes wrong in the meantime becomes a note of it.
    """
    history: list[dict[str, float]] = []
    begun: list[Any] = []
    trainer.should_stop, trainer.callbacks, trainer.fitting = False, tuple(callbacks), True
    try:
        for callback in callbacks:
            begun.append(callback)
            _call(callback, "on_train_begin", trainer)
        if trainer.end_step is not None and trainer.step > trainer.end_step:
            warn_caller(trainer, f"what was restored is of step {trainer.step}, beyond the last, {trainer.end_step}")
        for hook, *arguments in events:
            if hook == "on_train_batch_end":
                history.append(arguments[0])
            for callback in callbacks:
                _call(callback, hook, trainer, *arguments)
    except BaseException as error:
        _call_each(begun, "on_exception", trainer, error, after=error)
        _call_each(begun, "on_train_end", trainer, after=error)
        raise
    else:
        error = _call_each(begun, "on_train_end", trainer)
        if error is not None:
            raise error
    finally:
        trainer.callbacks, trainer.end_step, trainer.fitting = (), None, False
    return {name: np.array([now[name] for now in history]) for name in (history[0] if history else ())}


def _call(callback: Any, hook: str, *arguments: Any) -> None:
    """Call a hook, if the callback has it; an error gets a note that names both."""
    function = getattr(callback, hook, None)
    if function is None:
        return
    try:
        function(*arguments)
    except BaseException as error:
        error.add_note(f"raised by {type(callback).__name__}.{hook}")
        raise


def _call_each(
    callbacks: Sequence[Any], hook: str, *arguments: Any, after: BaseException | None = None
) -> BaseException | None:
    """Call a hook of every callback, whatever the others raise; the first error, with the later ones as its notes."""
    for callback in callbacks:
        try:
            _call(callback, hook, *arguments)
        except BaseException as error:
            if after is None:
                after = error
            elif after is not error:
                after.add_note(f"then {type(callback).__name__}.{hook} raised {type(error).__name__}: {error}")
    return after


def train_events(
    trainer: Any,
    data: Any,
    steps: int | None,
    batch_size: int | None,
    steps_per_call: int,
    step_arguments: dict[str, Any],
    validation: Any = None,
    validate_every: int | None = None,
) -> Iterator[Event]:
    """An iterator that trains as it is read: each item is a hook's name, and what to call it with.

    The arguments are checked before it is returned. They and the errors are those of `Trainer.fit`.
    """
    counts = {"steps": steps, "batch_size": batch_size, "steps_per_call": steps_per_call}
    for name, value in {**counts, "validate_every": validate_every}.items():
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 1):
            raise ValueError(f"{name}: got {value!r}, needs an integer of at least 1")
    validate = _validation(trainer, validation, validate_every)
    if not isinstance(data, Mapping):
        if not hasattr(data, "__iter__"):
            raise ValueError(f"data: got {type(data).__name__}, needs a mapping of arrays or an iterable of batches")
        if batch_size is not None:
            raise ValueError(f"batch_size: got {batch_size}, needs None: an iterable gives batches of its own")
        size = len(data) if hasattr(data, "__len__") else None
        steps = size if steps is None else steps
        trainer.end_step = None if steps is None else trainer.step + steps
        return _from_iterable(trainer, data, size, trainer.step, step_arguments, validate, validate_every)
    if steps is None:
        raise ValueError("steps: got None, needs how many: a mapping of arrays has no end")
    end = trainer.step + steps
    if batch_size is not None:
        if step_arguments or not trainer.independent_rows:
            what = next(iter(step_arguments), type(trainer).__name__)
            raise ValueError(f"batch_size: got {batch_size}, needs None with {what}: pass whole batches")
        prepared = prepare(trainer, data)
        size = count_rows(prepared, batch_size)
        trainer.end_step = end
        return _from_arrays(trainer, prepared, size, end, batch_size, steps_per_call, validate, validate_every)
    if validate is not None and validate_every is None:
        raise ValueError("validate_every: got None, needs a number of steps: a single batch has no epochs")
    if step_arguments:
        trainer.end_step = end
        return _from_iterable(trainer, itertools.repeat(data), None, None, step_arguments, validate, validate_every)
    placed = trainer._place(prepare(trainer, data))
    trainer.end_step = end
    return _from_arrays(trainer, placed, None, end, None, steps_per_call, validate, validate_every)


def prepare(trainer: Any, data: Any) -> Any:
    """A batch or dataset in the form that compiled code reads, its shapes and numbers checked."""
    prepared = trainer.prepare(data)
    trainer.validate(prepared)
    return prepared


def _from_arrays(trainer, data, size, end, batch_size, steps_per_call, validate, every):
    per_epoch = None if size is None else size // batch_size
    # No call goes beyond a validation, whose state is then that of its step.
    pause = None if validate is None else every or per_epoch
    entered = None
    while trainer.step < end and not trainer.should_stop:
        first = trainer.step
        length = min(steps_per_call, end - first, *(() if pause is None else (pause - first % pause,)))
        if per_epoch and first // per_epoch != entered:
            entered = first // per_epoch
            yield "on_epoch_begin", entered
        rows = None if size is None else choose_rows(trainer.key, first, length, size, batch_size)
        if length > 1:
            metrics = trainer._train_many(data, rows, length)
        else:  # not as a scan of one: a convolution within a scan is far slower on CPU
            batch = data if rows is None else trainer._place(take_rows(data, rows[0]))
            metrics = trainer._keep(trainer._start(batch))
        for step, now in enumerate(metrics, start=first):
            if per_epoch and step // per_epoch != entered:
                entered = step // per_epoch
                yield "on_epoch_begin", entered
            yield "on_train_batch_end", now, step
            if pause is not None and (step + 1) % pause == 0:
                yield "on_validation_end", validate(), step
            if per_epoch and (step + 1) % per_epoch == 0:
                yield "on_epoch_end", entered
        yield ("on_checkpoint",)


def _from_iterable(trainer, batches, size, start, step_arguments, validate, every):
    end = math.inf if trainer.end_step is None else trainer.end_step
    has_epochs = start is not None
    behind = trainer.step - start if has_epochs else 0  # what a callback has restored: read again, and passed over
    epoch, skip = divmod(behind, size) if size else (0, behind)
    while trainer.step < end and not trainer.should_stop:
        read, whole, untold = 0, False, False
        for batch in batches:
            read += 1
            if read <= skip:
                continue
            if untold:  # only now is it known that no epoch ended with the step before
                yield ("on_checkpoint",)
            if has_epochs and read == skip + 1:
                yield "on_epoch_begin", epoch
            metrics, untold = trainer.train_step(batch, **step_arguments), True
            yield "on_train_batch_end", metrics, trainer.step - 1
            if every is not None and trainer.step % every == 0:
                yield "on_validation_end", validate(), trainer.step - 1
            if trainer.should_stop or trainer.step >= end:
                whole = read == size
                break
        else:
            whole = True
        if has_epochs and whole and read > skip:
            if validate is not None and every is None:
                yield "on_validation_end", validate(), trainer.step - 1
            yield "on_epoch_end", epoch
        if untold:
            yield ("on_checkpoint",)
        if end == math.inf or read == 0:  # one pass was asked for, or a generator has nothing more
            return
        epoch, skip = epoch + 1, max(0, skip - read)


def _validation(trainer: Any, validation: Any, every: int | None) -> Callable[[], dict[str, float]] | None:
    """What returns the metrics of the validation as they are now, "val_" before each name; None if there is none."""
    if validation is None:
        if every is not None:
            raise ValueError(f"validation: got None beside validate_every={every}, needs data, or a function")
        return None
    if callable(validation):
        return lambda: {f"val_{name}": float(value) for name, value in validation(trainer).items()}
    batches = [validation] if isinstance(validation, Mapping) else validation
    if not isinstance(batches, Sequence) or not batches:
        raise ValueError(
            f"validation: got {type(validation).__name__}, needs a mapping of arrays, a list of them, or a function "
            f"of the trainer that returns metrics"
        )
    rows = []
    for batch in batches:
        try:
            rows.append(max(len(leaf) for leaf in jax.tree.leaves(prepare(trainer, batch)) if np.ndim(leaf)))
        except ValueError as error:
            error.add_note("in validation")
            raise

    def evaluate() -> dict[str, float]:
        found = [trainer.evaluate(batch) for batch in batches]
        return {f"val_{name}": float(np.average([one[name] for one in found], weights=rows)) for name in found[0]}

    return evaluate
