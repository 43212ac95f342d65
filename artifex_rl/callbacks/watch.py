"""What the callbacks that watch a metric share: where it is missing they say so, and what there is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from artifex_rl.notices import warn_caller


def watch(callback: Any, metrics: Mapping[str, Any], *names: str) -> float | None:
    """The first of the metrics that is there, as a float; None, and a warning once, if none is."""
    for name in names:
        if name in metrics:
            return float(metrics[name])
    warn_caller(callback, f"no metric {' or '.join(map(repr, names))} to watch; there are {sorted(metrics)}")
    return None


def check_count(name: str, value: Any) -> int:
    """The value, or a ValueError unless it is an integer of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name}: got {value!r}, needs an integer of at least 1")
    return int(value)


def check_number(name: str, value: Any, low: float = -math.inf) -> float:
    """The value, or a ValueError unless it is a finite number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < low:
        needs = "a finite number" if low == -math.inf else f"a finite number of at least {low:g}"
        raise ValueError(f"{name}: got {value!r}, needs {needs}")
    return float(value)
