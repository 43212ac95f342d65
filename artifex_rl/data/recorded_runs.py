"""Six recorded training runs, one of them healthy: dashboards to read."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np

FILE, UPDATES = "recorded_runs.npz", 100
METRICS = (
    "episode_return",
    "episode_length",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "value_loss",
    "policy_loss",
    "grad_norm",
    "loss",
)


class RecordedRuns(NamedTuple):
    """What six runs of PPO on CartPole reported after each of 100 updates of 8 · 128 steps."""

    runs: tuple[str, ...]  # what is the matter with each: look at the curves first
    metrics: tuple[str, ...]  # their names; "episode_length" is what nobody is paid for
    values: np.ndarray  # (6, metrics, 100) float32

    def series(self, run: int | str) -> dict[str, np.ndarray]:
        """Every metric of one run, by its number or its name."""
        row = self.runs.index(run) if isinstance(run, str) else run
        return dict(zip(self.metrics, self.values[row], strict=True))


def load_recorded_runs() -> RecordedRuns:
    """Made by `python -m artifex_rl.data.make_recorded_runs`, through `HistoryCallback`."""
    with (files("artifex_rl.data") / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return RecordedRuns(tuple(arrays["runs"].tolist()), tuple(arrays["metrics"].tolist()), arrays["values"])
