"""Policies that can write already, read from the package: what fine-tuning starts from."""

from __future__ import annotations

from importlib.resources import files

import jax.numpy as jnp
import numpy as np
from flax import nnx

from artifex_rl.data.ratings import rating_vocabulary
from artifex_rl.data.words import MAX_TOKENS, word_vocabulary
from artifex_rl.models.gru import GRU
from artifex_rl.rl.policies import SequencePolicy

#: The vocabulary of each checkpoint, whose file is `pretrained_<name>.npz`.
VOCABULARIES = {"languages": word_vocabulary, "lexicon": rating_vocabulary, "english": rating_vocabulary}


def pretrained_words(name: str = "languages", temperature: float = 1.0) -> SequencePolicy:
    """A GRU that writes words, ready to be fine-tuned: a new object each time.

    "languages" has read the English, Italian, German and Finnish words of `load_words`, each behind every one of the
    four prompts: it writes all four languages and does not know what a prompt asks for. That is left to be learned
    from rewards. "lexicon" has read all rated words of `load_ratings`, and none of their ratings. "english" has read
    the English words of `load_words` that are spelt with a–z, behind the one prompt, "word".

    Made by maximum likelihood: `python -m artifex_rl.data.make_pretrained_words`.

    Args:
        name: "languages", "lexicon" or "english".
        temperature: of the policy, > 0.

    Returns:
        A `SequencePolicy` for prompts `(B, 1)` of `word_vocabulary()` or `rating_vocabulary()`, with responses of at
        most 13 tokens.

    Raises:
        ValueError: there is no such checkpoint, or the temperature is out of its range.
    """
    if name not in VOCABULARIES:
        raise ValueError(f"name: got {name!r}, needs one of {', '.join(map(repr, VOCABULARIES))}")
    with (files("artifex_rl.data") / file_name(name)).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        weights = {tuple(path.split(".")): jnp.asarray(arrays[path], jnp.float32) for path in arrays.files}
    policy = new_policy(name, len(weights["network", "recurrent", "kernel"]), temperature=temperature)
    nnx.update(policy, nnx.traversals.unflatten_mapping(weights))
    return policy


def new_policy(name: str, hidden_features: int, *, temperature: float = 1.0, seed: int = 0) -> SequencePolicy:
    """The policy of a checkpoint before it has read anything."""
    vocabulary = VOCABULARIES[name]()
    network = GRU(vocabulary.num_tokens, hidden_features, vocabulary.num_outputs, rngs=nnx.Rngs(seed))
    return SequencePolicy(
        network, MAX_TOKENS, eos_id=vocabulary.eos_id, pad_id=vocabulary.eos_id, temperature=temperature
    )


def file_name(name: str) -> str:
    return f"pretrained_{name}.npz"
