"""What ships with the package: real data, scorers and judges, small pretrained networks. Nothing is downloaded."""

import importlib

from artifex_rl.data.cartpole import CartPoleRollout, load_cartpole_rollout
from artifex_rl.data.demonstration import demonstration_policy

#: Where the names live that come when asked for: they need more than JAX, or take longer.
_LAZY = {
    "LANGUAGES": "words",
    "DigitReward": "digits",
    "DigitSplit": "digits",
    "Digits": "digits",
    "Emoji": "emoji",
    "EndingReward": "word_rewards",
    "LanguageReward": "words",
    "Pairs": "ratings",
    "Ratings": "ratings",
    "RatingsSplit": "ratings",
    "Vocabulary": "vocabulary",
    "WordListReward": "word_rewards",
    "Words": "words",
    "compute_agreement": "ratings",
    "compute_agreement_ceiling": "ratings",
    "compute_word_log_probs": "ratings",
    "digit_judge": "digits",
    "digit_scorer": "digits",
    "draw_pairs": "ratings",
    "emoji_reward": "emoji",
    "image_diversity": "digits",
    "ink": "digits",
    "language_scorer": "words",
    "load_digits": "digits",
    "load_digits_denoiser": "digits_denoiser",
    "load_digits_flow": "digits_flow",
    "load_digits_gan": "digits_gan",
    "load_digits_vae": "digits_vae",
    "load_emoji": "emoji",
    "load_ratings": "ratings",
    "load_rhymes": "rhymes",
    "load_words": "words",
    "pretrained_words": "pretrained",
    "rating_vocabulary": "ratings",
    "to_pixels": "digits",
    "word_vocabulary": "words",
}

__all__ = [
    "LANGUAGES",
    "CartPoleRollout",
    "DigitReward",
    "DigitSplit",
    "Digits",
    "Emoji",
    "EndingReward",
    "LanguageReward",
    "Pairs",
    "Ratings",
    "RatingsSplit",
    "Vocabulary",
    "WordListReward",
    "Words",
    "compute_agreement",
    "compute_agreement_ceiling",
    "compute_word_log_probs",
    "demonstration_policy",
    "digit_judge",
    "digit_scorer",
    "draw_pairs",
    "emoji_reward",
    "image_diversity",
    "ink",
    "language_scorer",
    "load_cartpole_rollout",
    "load_digits",
    "load_digits_denoiser",
    "load_digits_flow",
    "load_digits_gan",
    "load_digits_vae",
    "load_emoji",
    "load_ratings",
    "load_rhymes",
    "load_words",
    "pretrained_words",
    "rating_vocabulary",
    "to_pixels",
    "word_vocabulary",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
