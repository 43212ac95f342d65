"""The lab: explorers to drag, exercise checks, and the course's launcher (`python -m artifex_rl.lab`)."""

try:
    import anywidget  # noqa: F401
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(f"artifex_rl.lab needs {error.name}: pip install 'artifex_rl[lab]'") from error

from artifex_rl.lab.baseline_explorer import BaselineExplorer
from artifex_rl.lab.clip_explorer import ClipExplorer
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.group_advantage_explorer import GroupAdvantageExplorer
from artifex_rl.lab.kl_explorer import KLExplorer
from artifex_rl.lab.preference_explorer import PreferenceExplorer
from artifex_rl.lab.returns_explorers import AdvantageExplorer, ReturnsExplorer
from artifex_rl.lab.reward_explorer import RewardExplorer

__all__ = [
    "AdvantageExplorer",
    "BaselineExplorer",
    "ClipExplorer",
    "Control",
    "Explorer",
    "GroupAdvantageExplorer",
    "KLExplorer",
    "PreferenceExplorer",
    "ReturnsExplorer",
    "RewardExplorer",
]
