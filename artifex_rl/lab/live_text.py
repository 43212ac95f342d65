"""What a live training says about itself: which curves it draws, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from artifex_rl.lab.live_figure import Groups
from artifex_rl.lab.live_run import FORK

#: What is drawn if nobody says, in this order, of what the steps report; at most six.
_CHOICE = {
    "return of an episode": ("episode_return",),
    "mean reward": ("mean_reward",),
    "implicit rewards": ("chosen_reward", "rejected_reward"),
    "accuracy on pairs": ("reward_accuracy",),
    "policy loss": ("policy_loss",),
    "loss": ("loss",),
    "value loss": ("value_loss",),
    "KL to the reference": ("kl_penalty",),
    "clip fraction": ("clip_fraction",),
    "entropy": ("entropy",),
    "spread of advantages": ("group_advantage_std",),
    "KL of a step": ("approx_kl",),
    "explained variance": ("explained_variance",),
    "reward margin": ("reward_margin",),
    "length of the gradient": ("grad_norm",),
}
#: Titles that say less than another that is there.
_INSTEAD = {"mean reward": "return of an episode", "loss": "policy loss"}
#: Metrics of trainers whose steps run on the host, where none is known before the first step.
_ON_HOST = {
    "GRPOTrainer": ("mean_reward", "policy_loss", "kl_penalty", "clip_fraction", "entropy", "group_advantage_std"),
    "REINFORCETrainer": ("mean_reward", "reward_std", "policy_loss", "entropy", "grad_norm"),
    "PPOTrainer": ("mean_reward", "policy_loss", "value_loss", "approx_kl", "clip_fraction", "entropy"),
}
MOST_AXES = 6


def curves_of(trainer: Any, names: Sequence[str] | None, curves: Any) -> Groups:
    """The metrics in each small figure, by its title.

    Raises:
        ValueError: a metric is not among those of the trainer's steps, or nothing is to be drawn.
    """
    if curves is None:
        there = names or _ON_HOST.get(type(trainer).__name__, ("loss", "grad_norm"))
        groups = {title: metrics for title, metrics in _CHOICE.items() if set(metrics) <= set(there)}
        chosen = [title for title in groups if _INSTEAD.get(title) not in groups]
        return {title: groups[title] for title in chosen[:MOST_AXES]}
    if isinstance(curves, str) or not isinstance(curves, Mapping | Sequence):
        raise ValueError(f"curves: got {curves!r}, needs a mapping from titles to metrics, or a list of metrics")
    given = curves if isinstance(curves, Mapping) else {name.replace("_", " "): name for name in curves}
    groups = {title: (metrics,) if isinstance(metrics, str) else tuple(metrics) for title, metrics in given.items()}
    if not 1 <= len(groups) <= 9 or not all(1 <= len(metrics) <= 5 for metrics in groups.values()):
        raise ValueError(f"curves: got {groups}, needs one to nine titles with one to five metrics each")
    unknown = [metric for metrics in groups.values() for metric in metrics if names and metric not in names]
    if unknown:
        raise ValueError(f"curves: got {', '.join(unknown)}, needs some of {', '.join(names)}")
    return groups


def title_of(trainer: Any) -> str:
    return f"{type(trainer).__name__.removesuffix('Trainer')}, live"


def describe(trainer: Any, engine: Any, groups: Groups) -> str:
    """Steps, the latest of the curves, and the latest moves. Without groups nothing that training has computed, which
    is the same on every machine."""
    name, run = type(trainer).__name__, engine.runs[0]
    if not engine.steps:
        return f"{name}, not trained yet: press Start."
    words, some = [], max(1, min(10, engine.steps // 2))
    for metrics in groups.values():
        if metrics[0] in run.history.names:
            column = run.history.column(metrics[0])
            first, last = (part[np.isfinite(part)] for part in (column[:100], column[-100:]))
            if len(first) and len(last):
                now, then = _short(last[-some:].mean()), _short(first[:some].mean())
                words.append(f"{_words(metrics[0])} {now} (at first {then})")
    sentences = [f"{name} after {engine.steps:,} step{'s' * (engine.steps != 1)}" + (": " if words else "")]
    sentences[0] += "; ".join(words) + "."
    moves = []
    for mark in (mark for mark in engine.runs[-1].marks if mark.name != FORK):
        moves = [move for move in moves if move.name != mark.name] + [mark]  # where each number was moved last
    moves = [f"{mark.text} from step {mark.step:,}" for mark in moves]
    if moves:
        sentences.append(f"Moved: {'; '.join(moves)}.")
    return " ".join([*sentences, *(f"What if: {label}." for label in legend(engine)[1:])])


def legend(engine: Any) -> list[str]:
    """What each run is: the numbers in which they differ; all numbers of one that is alone."""
    runs = engine.runs
    if len(runs) == 1:
        return [_numbers(engine, runs[0].wanted)] if engine.steps else []
    differ = [name for name in runs[0].wanted if len({run.wanted[name] for run in runs}) > 1]
    labels = [_numbers(engine, {name: run.wanted[name] for name in differ}) or "the same so far" for run in runs]
    return labels[:1] + [
        f"{label}, from step {run.history.start:,}" for label, run in zip(labels[1:], runs[1:], strict=True)
    ]


def _numbers(engine: Any, setting: dict[str, float]) -> str:
    return ", ".join(f"{engine.symbols.get(name, _words(name))} {value:.3g}" for name, value in setting.items())


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
