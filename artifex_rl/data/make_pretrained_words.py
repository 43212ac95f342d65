"""Make the checkpoints of `pretrained_words`: `python -m artifex_rl.data.make_pretrained_words`, some minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optax
from flax import nnx

from artifex_rl.data.pretrained import VOCABULARIES, as_word_policy, file_name, new_network
from artifex_rl.data.ratings import load_ratings
from artifex_rl.data.words import LANGUAGES, MAX_TOKENS, load_words
from artifex_rl.rl.policies import SequencePolicy
from artifex_rl.trainers import AutoregressiveTrainer

BATCH_SIZE = 128
LEARNING_RATE = 5e-3
STEPS = {"languages": 12_000, "lexicon": 3_000, "english": 9_000}


def fit_words(name: str, steps: int) -> SequencePolicy:
    """A policy that has read the words of a checkpoint: Adam with a cosine decay, from seed 0."""
    policy = as_word_policy(name, new_network(name, nnx.Rngs(0)))
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    optimizer = nnx.Optimizer(policy.network, optax.adam(schedule), wrt=nnx.Param)
    AutoregressiveTrainer(policy.network, optimizer).fit(training_data(name), steps, batch_size=BATCH_SIZE)
    return policy


def training_data(name: str) -> dict[str, np.ndarray]:
    """Every word behind every prompt, so that a prompt says nothing about the word."""
    if name == "languages":
        words = [word for language in LANGUAGES for word in load_words(language).train]
    elif name == "english":
        words = [word for word in load_words("en").train if word.isascii()]
    else:  # held-out words of the ratings, too: what is held out there is what people thought of them
        words = [word for part in load_ratings() for word in part.words]
    vocabulary = VOCABULARIES[name]()
    tokens, lengths = vocabulary.encode(words, MAX_TOKENS)
    prompts = np.repeat(vocabulary.prompt(vocabulary.prompts), len(words), axis=0)
    copies = len(vocabulary.prompts)
    return {"prompts": prompts, "tokens": np.tile(tokens, (copies, 1)), "lengths": np.tile(lengths, copies)}


def save_policy(name: str, policy: SequencePolicy) -> None:
    """Write the weights as halves, which cost nothing that a sample would show, at half the size."""
    weights = nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(policy, nnx.Param)), sep=".")
    arrays = {path: np.asarray(array, np.float16) for path, array in weights.items()}
    np.savez_compressed(Path(__file__).with_name(file_name(name)), **arrays)


if __name__ == "__main__":
    for name, steps in STEPS.items():
        save_policy(name, fit_words(name, steps))
