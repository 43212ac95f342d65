"""The lab: explorers to drag, exercise checks, and the course's launcher (`python -m artifex_rl.lab`)."""

import importlib
import os

# A lesson compiles hundreds of small programs and runs most of them once. LLVM's first level of optimisation takes a
# third less time over them than its usual one, and the models of this course train as fast. XLA reads this at the
# first computation; a level that was asked for stays.
if "xla_backend_optimization_level" not in (_flags := os.environ.get("XLA_FLAGS", "")):
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_backend_optimization_level=1".strip()

# XLA computes in as many threads as there are cores: two are enough here. Runs that are compared go side by side, one
# in each, which nearly halves their time; and an explorer is drawn while a panel trains. A single step of this size
# gains nothing from the second thread, PPO's on CartPole takes a sixth longer, and more would make that worse; a
# server's other cores go to its other learners. XLA reads this at the first computation, too. Where there is one
# core, a compiled function waits for the one that runs, and a host callback inside of one may hang if its arrays are
# larger than 100 kB.
if not {"PJRT_NPROC", "NPROC"} & os.environ.keys():
    _cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ["PJRT_NPROC"] = str(min(2, _cores))

#: All names come when asked for, so that the launcher and the doctor can say what is missing on a machine where
#: anywidget, matplotlib or the rest of the extra `lab` is.
_LAZY = {
    "AdvantageExplorer": "returns_explorers",
    "AlgorithmChooser": "algorithm_chooser",
    "AlgorithmExplorer": "algorithm_explorer",
    "BaselineExplorer": "baseline_explorer",
    "ClipExplorer": "clip_explorer",
    "Control": "control",
    "DashboardExplorer": "dashboard_explorer",
    "DenoisingExplorer": "denoising_explorer",
    "DiscriminatorExplorer": "discriminator_explorer",
    "EnergyTiltExplorer": "energy_tilt_explorer",
    "Environment": "chunks",
    "Explorer": "explorer",
    "FlowNoiseExplorer": "flow_noise_explorer",
    "GroupAdvantageExplorer": "group_advantage_explorer",
    "GuidanceExplorer": "guidance_explorer",
    "KLExplorer": "kl_explorer",
    "LatentWalkExplorer": "latent_walk_explorer",
    "LiveTraining": "live",
    "PreferenceExplorer": "preference_explorer",
    "ReturnsExplorer": "returns_explorers",
    "RewardExplorer": "reward_explorer",
    "Slider": "sliders",
    "TextRewardExplorer": "text_reward_explorer",
}

__all__ = [
    "AdvantageExplorer",
    "AlgorithmChooser",
    "AlgorithmExplorer",
    "BaselineExplorer",
    "ClipExplorer",
    "Control",
    "DashboardExplorer",
    "DenoisingExplorer",
    "DiscriminatorExplorer",
    "EnergyTiltExplorer",
    "Environment",
    "Explorer",
    "FlowNoiseExplorer",
    "GroupAdvantageExplorer",
    "GuidanceExplorer",
    "KLExplorer",
    "LatentWalkExplorer",
    "LiveTraining",
    "PreferenceExplorer",
    "ReturnsExplorer",
    "RewardExplorer",
    "Slider",
    "TextRewardExplorer",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for needed in ("anywidget", "matplotlib"):
        try:
            importlib.import_module(needed)
        except ImportError as error:
            raise ImportError(f"artifex_rl.lab needs {needed}: pip install 'artifex_rl[lab]'") from error
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
