"""Batches of a form that has passed its checks before: to rename their keys is then all there is to do.

Most steps of a training are given batches of one form: the same keys, shapes and types. Whether shapes fit is then
known, and checking them again would take longer than all else that Python does in a step.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


class KnownForms:
    """The forms that were checked, each with the canonical name that every key stands for.

    Known is only what the checks leave as it is. Where they convert or add an entry, or a mask says what counts, the
    numbers matter too, and every batch goes the long way.
    """

    def __init__(self):
        self._names: dict[Any, dict[str, Any]] = {}

    def read(self, batch: Any, *settings: Any) -> dict[str, Any] | None:
        """The batch under canonical names if its form is known under these settings, else None."""
        names = self._names.get((form(batch), settings))
        return None if names is None else {name: batch[key] for name, key in names.items()}

    def learn(self, batch: Any, checked: dict[str, Any], *settings: Any) -> None:
        """Remember the form of a batch that the checks have turned into `checked`, if it is that very batch."""
        seen = form(batch)
        if seen is None or any(name.endswith("mask") for name in checked):
            return
        keys = {id(value): key for key, value in batch.items()}
        if len(keys) < len(batch):  # one array under two keys does not say which of them is which
            return
        if all(id(value) in keys for value in checked.values()):
            self._names[seen, settings] = {name: keys[id(value)] for name, value in checked.items()}


def form(batch: Any) -> tuple | None:
    """Keys, shapes and types of a dictionary of arrays; None for anything else, and for 64-bit integers.

    Of those the numbers matter: some do not fit into the 32 bits that JAX has for them.
    """
    if type(batch) is not dict:
        return None
    entries = []
    for key, value in batch.items():
        if not isinstance(value, np.ndarray | jax.Array) or value.dtype in (np.int64, np.uint64):
            return None
        entries.append((key, value.shape, value.dtype))
    return tuple(entries)
