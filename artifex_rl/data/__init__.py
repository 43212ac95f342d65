"""What ships with the package: real data, scorers and judges, small pretrained networks. Nothing is downloaded."""

import importlib

from artifex_rl.data.cartpole import CartPoleRollout, load_cartpole_rollout
from artifex_rl.data.demonstration import demonstration_policy

#: Where the names live that come when asked for: they need more than JAX, or take longer.
_LAZY = {
    "DigitReward": "digits",
    "DigitSplit": "digits",
    "Digits": "digits",
    "digit_judge": "digits",
    "digit_scorer": "digits",
    "image_diversity": "digits",
    "ink": "digits",
    "load_digits": "digits",
    "load_digits_denoiser": "digits_denoiser",
    "to_pixels": "digits",
}

__all__ = [
    "CartPoleRollout",
    "DigitReward",
    "DigitSplit",
    "Digits",
    "demonstration_policy",
    "digit_judge",
    "digit_scorer",
    "image_diversity",
    "ink",
    "load_cartpole_rollout",
    "load_digits",
    "load_digits_denoiser",
    "to_pixels",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
