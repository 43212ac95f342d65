"""The lab: explorers to drag, exercise checks, and the course's launcher (`python -m artifex_rl.lab`)."""

import importlib

try:
    import anywidget  # noqa: F401
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(f"artifex_rl.lab needs {error.name}: pip install 'artifex_rl[lab]'") from error

from artifex_rl.lab.baseline_explorer import BaselineExplorer
from artifex_rl.lab.clip_explorer import ClipExplorer
from artifex_rl.lab.control import Control
from artifex_rl.lab.dashboard_explorer import DashboardExplorer
from artifex_rl.lab.denoising_explorer import DenoisingExplorer
from artifex_rl.lab.energy_tilt_explorer import EnergyTiltExplorer
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.flow_noise_explorer import FlowNoiseExplorer
from artifex_rl.lab.group_advantage_explorer import GroupAdvantageExplorer
from artifex_rl.lab.kl_explorer import KLExplorer
from artifex_rl.lab.preference_explorer import PreferenceExplorer
from artifex_rl.lab.returns_explorers import AdvantageExplorer, ReturnsExplorer
from artifex_rl.lab.reward_explorer import RewardExplorer
from artifex_rl.lab.text_reward_explorer import TextRewardExplorer

#: What needs the trainers, and so flax.nnx, comes when asked for.
_LAZY = {
    "AlgorithmChooser": "algorithm_chooser",
    "AlgorithmExplorer": "algorithm_explorer",
    "DiscriminatorExplorer": "discriminator_explorer",
    "Environment": "chunks",
    "GuidanceExplorer": "guidance_explorer",
    "LatentWalkExplorer": "latent_walk_explorer",
    "LiveTraining": "live",
    "Slider": "sliders",
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
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
