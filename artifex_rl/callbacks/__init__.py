"""Callbacks for `Trainer.fit` and for loops written by hand: progress, history, checkpoints, W&B, profiles, stops.

Each comes when it is asked for, so that orbax, wandb and the others are imported only by who uses them.
"""

import importlib

from artifex_rl.callbacks.callback import Callback

#: Where the names live that come when asked for.
_LAZY = {
    "CheckpointConfig": "model_checkpoint",
    "EarlyStopping": "early_stopping",
    "HistoryCallback": "history",
    "JAXProfiler": "profiler",
    "KLStop": "kl_stop",
    "ModelCheckpoint": "model_checkpoint",
    "ProfilingConfig": "profiler",
    "ProgressBarCallback": "progress_bar",
    "SampleGrid": "sample_grid",
    "TensorBoardCallback": "tensorboard",
    "WandbLoggerCallback": "wandb_logger",
    "WandbLoggerConfig": "wandb_logger",
}

__all__ = [
    "Callback",
    "CheckpointConfig",
    "EarlyStopping",
    "HistoryCallback",
    "JAXProfiler",
    "KLStop",
    "ModelCheckpoint",
    "ProfilingConfig",
    "ProgressBarCallback",
    "SampleGrid",
    "TensorBoardCallback",
    "WandbLoggerCallback",
    "WandbLoggerConfig",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
