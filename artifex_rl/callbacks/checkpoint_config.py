"""Settings of checkpoints, and the order that they put them in."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifex_rl.callbacks.checkpoint_folder import SavedCheckpoint
from artifex_rl.configs import choice, config, count, flag


def _read_path(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError("the path of a folder")
    return Path(value)


def _read_monitor(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError("the name of a metric, or None")
    return value


def _read_top_k(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < -1:
        raise ValueError("an integer of at least -1")
    return int(value)


def _read_save_last(value: Any) -> bool | None:
    if not isinstance(value, bool | None):
        raise ValueError("True, False or None")
    return value


def _read_resume(value: Any) -> str | None:
    if value not in (None, "auto"):
        raise ValueError("None or 'auto'")
    return value


def _setting(default: Any, read: Any) -> Any:
    return dataclasses.field(default=default, metadata={"read": read})


@config
class CheckpointConfig:
    """Settings of `ModelCheckpoint`. The first four are the guide's.

    Args:
        dirpath: the folder of the checkpoints of one run. It is made if it is not there.
        monitor: the metric that says which are the best, of training or, as "val_loss", of validation. None: the
            newest are the best.
        mode: "min" or "max": which values are better.
        save_top_k: how many of the best to keep. −1: all; 0: none.
        every_n_steps: a checkpoint may be taken when `trainer.step` is a multiple of this, and at the end. One that
            would not be kept is not written: with `save_last` off, only steps that are among the best so far cost
            anything. Writing a small model takes 0.03 to 0.1 s.
        save_last: also keep the newest. None: where `resume` is set, because without it a run that was killed would
            go on from its best step, not from its last.
        save_on_exception: also keep the state in which an error or an interrupt has left the trainer.
        resume: "auto": go on from the newest checkpoint in the folder, if there is one. None: a folder with
            checkpoints in it is an error.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    dirpath: Path = _setting(Path("checkpoints"), _read_path)
    monitor: str | None = _setting("loss", _read_monitor)
    mode: str = choice("min", "max")
    save_top_k: int = _setting(1, _read_top_k)
    every_n_steps: int = count(1)
    save_last: bool | None = _setting(None, _read_save_last)
    save_on_exception: bool = flag(True)
    resume: str | None = _setting(None, _read_resume)

    @property
    def keeps_last(self) -> bool:
        """`save_last`, or where that is None, what follows from `resume`."""
        return self.resume is not None if self.save_last is None else self.save_last

    def rank(self, metrics: dict[str, float], step: int) -> tuple[float, int] | None:
        """What checkpoints are sorted by, the best first; None for one that is never among the best.

        That is one whose value is missing, NaN or infinite. Of equal values the earlier is the better.
        """
        if self.monitor is None:
            return (-step, step)
        value = metrics.get(self.monitor, math.nan)
        return ((-value if self.mode == "max" else value), step) if math.isfinite(value) else None

    def sort(self, saved: Sequence[SavedCheckpoint]) -> list[SavedCheckpoint]:
        """Those that have a rank, the best first."""
        ranks = {one.step: self.rank(one.metrics, one.step) for one in saved}
        return sorted((one for one in saved if ranks[one.step] is not None), key=lambda one: ranks[one.step])

    def is_among_the_best(self, metrics: dict[str, float], step: int, saved: Sequence[SavedCheckpoint]) -> bool:
        """Whether a checkpoint of that step would be one of the `save_top_k` best beside those that are saved."""
        if self.save_top_k == -1:
            return True
        rank, best = self.rank(metrics, step), self.sort(saved)[: self.save_top_k]
        if rank is None or self.save_top_k == 0:
            return False
        return len(best) < self.save_top_k or rank < self.rank(best[-1].metrics, best[-1].step)

    def to_keep(self, saved: Sequence[SavedCheckpoint], keep_newest: bool) -> list[SavedCheckpoint]:
        """Those of the saved ones that stay."""
        if self.save_top_k == -1:
            return list(saved)
        return self.sort(saved)[: self.save_top_k] + (list(saved[-1:]) if keep_newest else [])
