"""The runs of notebook 05's diagnosis lab. What is wrong with which stands in here: look at the curves first."""

from __future__ import annotations

from typing import Any

#: From a data set to what each of the two has trained on. Blue's loader always begins at its first row.
SUSPECTS = {
    "Red": lambda pairs, batch_size: (pairs, batch_size),
    "Blue": lambda pairs, batch_size: (_take_first(pairs, batch_size), None),
}


def _take_first(pairs: dict[str, Any], count: int) -> dict[str, Any]:
    return {name: values[:count] for name, values in pairs.items()}
