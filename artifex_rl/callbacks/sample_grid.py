"""Pictures of what a model makes, saved as it trains."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.watch import check_count
from artifex_rl.data.extras import require
from artifex_rl.notices import warn_caller


class SampleGrid(Callback):
    """Saves samples every `every_n_steps` steps, before the first step and after the last: `step_0000100.png`.

    Every picture is drawn with the same key, so that one sees the same noise become something else. `show` has a copy
    of the model, and the training does not notice that it was looked at.

    Args:
        show: `show(model, key)` returns images `(B, H, W)` or `(B, H, W, 3)`, from 0, black, to 1, or a matplotlib
            Figure, which become a PNG; or a text or texts, which become a `.txt`: as `show` of `lab.LiveTraining`.
        dirpath: the folder. A picture of the same step in it is replaced.
        every_n_steps: 1 or more; counted by `trainer.step`, so that the name says how many steps lie behind.
        seed: of the key.

    Attributes:
        path: of the last picture, None before there is one.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: an argument is out of its range, or `show` returns something else.
        Exception: whatever `show` raises.
    """

    def __init__(
        self,
        show: Callable[[Any, jax.Array], Any],
        dirpath: str | os.PathLike = "samples",
        every_n_steps: int = 100,
        seed: int = 0,
    ):
        if not callable(show):
            raise ValueError(f"show: got {type(show).__name__}, needs a function of a model and a key")
        require("matplotlib", extra="lab")
        self.show, self.dirpath = show, Path(dirpath)
        self.every_n_steps, self.seed = check_count("every_n_steps", every_n_steps), seed
        self.path: Path | None = None
        self._at = -1  # trainer.step of the last picture
        self._failed = False

    def on_train_begin(self, trainer: Any) -> None:
        self._at, self._failed = trainer.step, False
        if trainer.step == 0:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        if trainer.step // self.every_n_steps != self._at // self.every_n_steps:
            self._save(trainer)

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self._failed = True

    def on_train_end(self, trainer: Any) -> None:
        if not self._failed and trainer.step != self._at:
            self._save(trainer)

    def _save(self, trainer):
        from artifex_rl.samples import as_sample

        self._at = trainer.step
        sample = as_sample(self.show(trainer.merge(trainer.state)[0], jax.random.key(self.seed)))
        content = sample["png"] if "png" in sample else f"{sample['text']}\n".encode()
        path = self.dirpath / f"step_{trainer.step:07d}.{'png' if 'png' in sample else 'txt'}"
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            self.dirpath.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content)
            new.replace(path)  # whole or not at all
        except OSError as error:
            new.unlink(missing_ok=True)
            warn_caller(self, f"cannot save pictures in {self.dirpath}: {error}. Training goes on")
            return
        self.path = path
