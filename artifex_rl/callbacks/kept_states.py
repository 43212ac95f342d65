"""What a checkpoint holds besides the trainer, as JSON: the callbacks' states, and the host's random numbers."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np

from artifex_rl.notices import warn_caller


def callback_states(callbacks: Any, but: Any) -> list[list[Any]]:
    """Name, number among those of that name, and state of every callback that has one, but for `but`.

    Raises:
        TypeError: a state is no JSON; the message names the callback.
    """
    states = []
    for name, number, callback in _numbered(callbacks):
        if callback is but or not hasattr(callback, "state_dict"):
            continue
        try:
            states.append([name, number, json.loads(json.dumps(callback.state_dict(), default=_plain))])
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name}.state_dict: needs numbers, strings, None, and lists and dictionaries of them: {error}"
            ) from error
    return states


def load_callback_states(callbacks: Any, states: dict[tuple[str, int], Any], but: Any) -> None:
    """Give each callback the state that one of its name, and of its number among them, had.

    Raises:
        ValueError: one cannot go on from it; the message names it.
    """
    kept = dict(states)
    for name, number, callback in _numbered(callbacks):
        if callback is but or (name, number) not in kept:
            continue
        try:
            callback.load_state_dict(kept.pop((name, number)))
        except Exception as error:
            raise ValueError(f"{name} cannot go on from its state: {type(error).__name__}: {error}") from error
    missing = sorted({name for (name, _), state in kept.items() if state})
    if missing:
        warn_caller(but, f"the checkpoint holds states of callbacks that are not here: {', '.join(missing)}")


def random_states() -> dict[str, Any]:
    """The global generators of NumPy and of Python, which a reward on the host may draw from."""
    kind, words, place, has_gauss, gauss = np.random.get_state()
    version, state, gauss_next = random.getstate()
    return {
        "numpy": [kind, words.tolist(), place, has_gauss, gauss],
        "python": [version, list(state), gauss_next],
    }


def load_random_states(states: dict[str, Any]) -> None:
    """Set both to what they were; a ValueError or TypeError, before either has changed, if that is impossible."""
    kind, words, place, has_gauss, gauss = states["numpy"]
    version, state, gauss_next = states["python"]
    numpy_state = (kind, np.array(words, np.uint32), place, has_gauss, gauss)
    python_state = (version, tuple(state), gauss_next)
    np.random.RandomState().set_state(numpy_state)
    random.Random().setstate(python_state)
    np.random.set_state(numpy_state)
    random.setstate(python_state)


def _numbered(callbacks: Any) -> list[tuple[str, int, Any]]:
    numbers: Counter[str] = Counter()
    numbered = []
    for callback in callbacks:
        name = type(callback).__name__
        numbered.append((name, numbers[name], callback))
        numbers[name] += 1
    return numbered


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"got a {type(value).__name__}")
