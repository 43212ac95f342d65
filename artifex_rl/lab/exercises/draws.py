"""Random cases for exercises: small, in tenths so that they are easily read, and rarely alike."""

from __future__ import annotations

from typing import Any

import numpy as np


def tenths(rng: np.random.Generator, *shape: int, low: float = -2.0, high: float = 4.0) -> np.ndarray:
    """Numbers from low to high with one digit after the point, none of them 0: what is multiplied by 0 hides."""
    numbers = rng.integers(round(10 * low), round(10 * high) + 1, shape) / 10
    return np.where(numbers == 0, 0.5, numbers)


def draw_dones(rng: np.random.Generator, *shape: int, often: bool = False) -> np.ndarray:
    """Where episodes end; in some cases nowhere, in others at the last step or at two steps in a row."""
    return rng.random(shape) < (0.6 if often else 0.35)


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    """One of them, as it is."""
    return choices[int(rng.integers(len(choices)))]


def draw_mask(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Tokens of responses, `(rows, columns)`: each row begins with one true entry or more, and then is padding."""
    return np.arange(columns) < rng.integers(1, columns + 1, rows)[:, None]
