"""The lab: explorers to drag, exercise checks, and the course's launcher (`python -m artifex_rl.lab`)."""

import importlib
import os

from artifex_rl.lab.memory import share_arenas

# A lesson compiles hundreds of small programs and runs most of them once. LLVM's first level of optimisation takes a
# third less time over them than its usual one, and the models of this course train as fast. XLA reads this at the
# first computation; a level that was asked for stays.
if "xla_backend_optimization_level" not in (_flags := os.environ.get("XLA_FLAGS", "")):
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_backend_optimization_level=1".strip()

# XLA splits a step among as many threads as there are cores, and steps of this size lose more by it than they gain:
# on two cores PPO's on CartPole takes a quarter longer with two threads, and twice the processor time. The other core
# is free to draw, and a server's cores go to its other learners. XLA reads this at the first computation, too. The
# price: a compiled function waits for the one that runs, at most one chunk of a live training; and a host callback
# inside of a compiled function may hang if its arrays are larger than 100 kB, as on any machine of one core.
_OURS = "ARTIFEX_RL_PJRT_NPROC"  # a kernel inherits both, and knows that nobody has asked for the number
if not {"PJRT_NPROC", "NPROC"} & os.environ.keys():
    os.environ["PJRT_NPROC"] = os.environ[_OURS] = "1"


def train_two_at_a_time() -> None:
    """Let XLA compute in two threads, for a notebook that trains one run in each: two take hardly longer than one.

    To be called before the first computation; afterwards it changes nothing until the kernel is restarted. Sequence
    models train as fast by themselves as with one thread, PPO on CartPole takes a quarter longer. What the
    environment asks for, in PJRT_NPROC or NPROC, stays.
    """
    if os.environ.get("PJRT_NPROC", "") == os.environ.get(_OURS):
        os.environ["PJRT_NPROC"] = "2"


share_arenas()

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
    "train_two_at_a_time",
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
