"""Warnings at the line of the user's code that led to them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

_INSIDE = str(Path(__file__).parent)


def warn_caller(speaker: Any, message: str) -> None:
    """A UserWarning at the line outside the library that called it, once for each speaker and message.

    Args:
        speaker: the trainer or callback that has to say it; its class is named.
        message: what there is to say.
    """
    said = speaker.__dict__.setdefault("_said", set())
    if message in said:
        return
    said.add(message)
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{type(speaker).__name__}: {message}", UserWarning, stacklevel=level)
