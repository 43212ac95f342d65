"""Checkpoints while training: the best by a metric and the newest, and a run that goes on as if never killed."""

from __future__ import annotations

from typing import Any

from artifex_rl.callbacks.callback import Callback
from artifex_rl.callbacks.checkpoint_config import CheckpointConfig
from artifex_rl.callbacks.checkpoint_folder import CheckpointFolder, SavedCheckpoint
from artifex_rl.callbacks.folder_lock import FolderLock
from artifex_rl.callbacks.resuming import check_folder, extras, resume
from artifex_rl.checkpoints import config_dict, restore_trainer
from artifex_rl.notices import warn_caller


class ModelCheckpoint(Callback):
    """Keeps the best checkpoints and the newest, and resumes from them; in `fit`, and in a loop written by hand.

    A checkpoint holds the model, the optimizer, the trainer's companions, its step, random key and config; NumPy's
    and Python's global random states, for rewards that draw from them; and the `state_dict` of every callback in
    `trainer.callbacks`. It is a folder that `Trainer.restore` reads as well. Arrays are written by orbax, the rest is
    JSON: to read one runs no code that is in it.

    With `resume="auto"`, `on_train_begin` brings the trainer to its newest whole checkpoint, and what follows is what
    would have followed, to the bit. `fit(data, steps)` then makes the steps that are left of `steps`, with the
    batches that are left. A loop by hand starts where the trainer stands:

        for step, batch in enumerate(dataloader):
            if step < trainer.step:
                continue  # trained on before the run was killed
            metrics = trainer.train_step(batch, reward_fn, jax.random.fold_in(key, step))

    It sets `trainer.callbacks = callbacks` if their states are to be kept, and then has this one last among them.

    The metrics of a step are those of the batch it was trained on; the state is that after it. Where one compiled
    call makes many steps (`steps_per_call`), only the last of them can be saved, with its own metrics; one is taken
    if any step of the call was a multiple of `every_n_steps`. A value that is not finite is never among the best, and
    of equal ones the earlier is.

    A checkpoint that cannot be written, on a full disk say, is a warning: the older ones stay whole and training goes
    on. One that cannot be read is a warning, too, and the one before it is taken; none that can be read is an error.

    Args:
        config: None for the defaults.

    Raises:
        FileExistsError: (on_train_begin) there are checkpoints in the folder and `resume` is None. Here and below,
            neither the trainer nor the folder has changed.
        BlockingIOError: (on_train_begin) another process, or another ModelCheckpoint, is writing to the folder.
        ValueError: (on_train_begin) checkpoints are there, but none can be restored into this trainer.
    """

    def __init__(self, config: CheckpointConfig | None = None):
        if config is not None and not isinstance(config, CheckpointConfig):
            raise TypeError(f"config: got {type(config).__name__}, needs CheckpointConfig")
        self.config = config or CheckpointConfig()
        self.saved: list[SavedCheckpoint] = []
        self._folder = CheckpointFolder(self.config.dirpath.absolute())
        self._lock = FolderLock(self._folder.path)
        self._initial_config: Any = None
        self._metrics: dict[str, float] = {}
        self._names: set[str] = set()  # of all metrics that came by
        self._warned_of_monitor = False
        self._considered, self._due = 0, -1  # steps
        self._failed: list[int] = []  # steps
        self._exception = False

    @property
    def best(self) -> SavedCheckpoint | None:
        """The best checkpoint by the monitored metric; None where there is none."""
        return next(iter(self.config.sort(self.saved)), None)

    @property
    def last(self) -> SavedCheckpoint | None:
        """The newest checkpoint; None where there is none."""
        return self.saved[-1] if self.saved else None

    def restore(self, trainer: Any, saved: SavedCheckpoint | None = None) -> SavedCheckpoint:
        """Bring a trainer to a checkpoint, by default the best; callbacks and random states stay as they are.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is broken, or of another trainer. Nothing has changed.
        """
        saved = saved or self.best
        if saved is None:
            raise FileNotFoundError(
                f"dirpath: {self._folder.path} has no checkpoint with a finite {self.config.monitor}"
            )
        self._folder.verify(saved.path)
        restore_trainer(trainer, saved.path)
        return saved

    # Hooks

    def on_train_begin(self, trainer: Any) -> None:
        extras(trainer, self, None)  # an error now, and not at the first checkpoint
        goes_on = self._goes_on(trainer)
        may_be_used = goes_on or self.config.resume is not None
        check_folder(self._folder, may_be_used)
        self._folder.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            check_folder(self._folder, may_be_used)
            self._folder.sweep()
            if not goes_on:
                given = config_dict(trainer)
                self.saved, initial = resume(self._folder, trainer, self)
                self._initial_config = initial if self.saved else given
        except BaseException:
            self._lock.release()
            raise
        self._metrics, self._names, self._failed, self._exception = {}, set(), [], False
        self._considered, self._due = trainer.step, -1

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        self._metrics = {}
        self.on_validation_end(trainer, metrics, step)

    def on_validation_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        self._metrics = self._metrics | {name: _number(name, value) for name, value in metrics.items()}
        self._names |= metrics.keys()
        if not trainer.fitting:
            self._consider(trainer)

    def on_checkpoint(self, trainer: Any) -> None:
        self._consider(trainer)

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self._exception = True
        if self.config.save_on_exception and self._lock.held and self._metrics:
            self._consider(trainer, at_the_end=True)

    def on_train_end(self, trainer: Any) -> None:
        if not self._lock.held:
            return
        try:
            if self._metrics and not self._exception:
                self._consider(trainer, at_the_end=True)
        finally:
            self._lock.release()
        if self._names and self.config.monitor not in {None, *self._names}:
            self._warn_of_monitor()
        if len(self._failed) > 1:
            warn_caller(
                self, f"{len(self._failed)} checkpoints could not be written, the last of step {self._failed[-1]}"
            )

    # How it is done

    def _goes_on(self, trainer: Any) -> bool:
        """Whether it was this object that wrote what is in the folder, and the trainer has come from there."""
        self.saved = [saved for saved in self.saved if saved.path.exists()]
        return self.last is not None and trainer.step >= self.last.step

    def _consider(self, trainer: Any, at_the_end: bool = False) -> None:
        """Write a checkpoint of now, if one is due that is to be kept, and remove those that no longer are."""
        if not self._lock.held:
            raise RuntimeError("ModelCheckpoint: got a step, needs on_train_begin(trainer) to be called before it")
        step, every = trainer.step, self.config.every_n_steps
        if at_the_end or step // every > self._considered // every:
            self._due = step
        self._considered = step
        if self._due != step:
            return
        if self.config.monitor not in {None, *self._metrics} and not self.config.monitor.startswith("val_"):
            self._warn_of_monitor()
        # A run does not end with an empty folder, and the state that an error has left is worth more than its rank.
        nothing_yet = not self.saved and self.config.save_top_k != 0
        keep_newest = self.config.keeps_last or (at_the_end and (self._exception or nothing_yet))
        if keep_newest or self.config.is_among_the_best(self._metrics, step, self.saved):
            try:
                self._write(trainer)
                self._prune(keep_newest)
            except Exception as error:
                self._warn_of_failure(step, error)

    def _write(self, trainer: Any) -> None:
        if self.last is None or self.last.step != trainer.step:
            more = extras(trainer, self, self._initial_config)
            self.saved.append(self._folder.write(trainer, self._metrics, more))
        elif self.last.metrics != self._metrics:  # those of a validation have come
            self.saved[-1] = self._folder.annotate(self.last, self._metrics)

    def _prune(self, keep_newest: bool) -> None:
        keep = self.config.to_keep(self.saved, keep_newest)
        for saved in [saved for saved in self.saved if saved not in keep]:
            self.saved.remove(saved)
            self._folder.remove(saved.path)

    def _warn_of_failure(self, step: int, error: Exception) -> None:
        self._failed.append(step)
        if len(self._failed) > 1:
            return
        reason = next(iter(str(error).splitlines()), "")[:300]
        older = f"the {len(self.saved)} older ones are whole" if self.saved else "there is no older one"
        warn_caller(
            self,
            f"the checkpoint of step {step} could not be written: {type(error).__name__}: {reason}; {older}, and "
            f"training goes on",
        )

    def _warn_of_monitor(self) -> None:
        if self._warned_of_monitor:
            return
        self._warned_of_monitor = True
        warn_caller(
            self,
            f"monitor: no metric is called {self.config.monitor!r}; there are {', '.join(sorted(self._names))}. No "
            f"checkpoint is among the best",
        )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metrics: {name} is {type(value).__name__}, needs a number") from None
