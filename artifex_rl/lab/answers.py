"""Running somebody else's function: how it is called, what comes back, and how to say that it raised."""

from __future__ import annotations

import contextlib
import inspect
import io
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: What a function gave on a case: arrays by the words that name them, such as "the result" or "the loss".
Results = dict[str, np.ndarray]


class Told(Exception):
    """The verdict is clear; `inputs` is the case that it speaks of."""

    def __init__(self, verdict: str, inputs: dict[str, Any] | None = None):
        super().__init__(verdict)
        self.verdict, self.inputs = verdict, inputs


def call(function: Callable, arguments: Mapping[str, Any]) -> Any:
    """By name where the function has these names, in whatever order; else by position: names are the learner's."""
    try:
        names = set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = set()
    return function(**arguments) if names == set(arguments) else function(*arguments.values())


def measure(function: Callable, inputs: Mapping[str, Any]) -> Results | None:
    """What the function returns, as one array. None where that is nothing."""
    result = function(**inputs)
    return None if _is_nothing(result) else {"the result": as_numbers(result)}


def measure_with_gradients(*names: str) -> Callable[[Callable, Mapping[str, Any]], Results | None]:
    """A way to run a scalar loss: its value, and its gradients by the arguments of these names, in JAX's float32."""

    def run(function: Callable, inputs: Mapping[str, Any]) -> Results | None:
        arrays = {name: _as_jax(value) for name, value in inputs.items()}
        others: list[Any] = []  # what is no array of numbers cannot be differentiated, only shown

        def loss_of(moved: dict[str, Any]) -> Any:
            loss = function(**{**arrays, **moved})
            if _is_nothing(loss) or not isinstance(loss, jax.Array | np.ndarray | np.generic | float | int):
                others.append(loss)
                return jnp.zeros(())
            return jnp.asarray(loss, float)

        loss, pull_back = jax.vjp(loss_of, {name: arrays[name] for name in names})
        if others:
            return None if _is_nothing(others[0]) else {"the loss": as_numbers(others[0])}
        if loss.shape != ():
            return {"the loss": as_numbers(loss)}  # its shape is what there is to say
        (gradients,) = pull_back(jnp.ones(()))
        return {"the loss": as_numbers(loss)} | {
            f"the gradient by {name}": as_numbers(gradients[name]) for name in names
        }

    return run


def as_numbers(result: Any) -> np.ndarray:
    """As an array of floats, or of integers if that is what came; an array of objects where it is not of numbers."""
    try:
        array = np.asarray(result)
        return array if array.dtype.kind in "iub" else array.astype(float)
    except (TypeError, ValueError):
        found = np.empty((), object)
        found[()] = result
        return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A function that is called a hundred times prints and warns a hundred times, unless it is kept from it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def raised(error: Exception, answer: Callable) -> str:
    """The exception in one line, with the line of the learner's own code."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" (line {lines[-1]} of your cell)" if lines else ""
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return f"an error: the loss is differentiated here, so it needs jnp where it has np{where}"
    message = " ".join(str(error).split())
    message = message if len(message) <= 160 else message[:157] + "…"
    return f"{type(error).__name__}{f': {message}' if message else ''}{where}"


def _is_nothing(result: Any) -> bool:
    return result is None or result is Ellipsis


def _as_jax(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return jnp.asarray(value, jnp.float32) if value.dtype.kind == "f" else jnp.asarray(value)
