"""Policies that can write already, read from the package: what fine-tuning starts from."""

from __future__ import annotations

from functools import partial

from flax import nnx

from artifex_rl.data.ratings import rating_vocabulary
from artifex_rl.data.weights import load_weights
from artifex_rl.data.words import MAX_TOKENS, word_vocabulary
from artifex_rl.models.gru import GRU
from artifex_rl.rl.policies import SequencePolicy

#: The vocabulary of each checkpoint, whose file is `pretrained_<name>.npz`.
VOCABULARIES = {"languages": word_vocabulary, "lexicon": rating_vocabulary, "english": rating_vocabulary}
HIDDEN_FEATURES = {"languages": 128, "lexicon": 128, "english": 96}


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
    make = partial(new_network, name)
    return as_word_policy(name, load_weights(make, file_name(name), "network."), temperature=temperature)


def new_network(name: str, rngs: nnx.Rngs) -> GRU:
    """The network of a checkpoint before it has read anything."""
    vocabulary = VOCABULARIES[name]()
    return GRU(vocabulary.num_tokens, HIDDEN_FEATURES[name], vocabulary.num_outputs, rngs=rngs)


def as_word_policy(name: str, network: GRU, temperature: float = 1.0) -> SequencePolicy:
    """The policy that writes with it."""
    eos_id = VOCABULARIES[name]().eos_id
    return SequencePolicy(network, MAX_TOKENS, eos_id=eos_id, pad_id=eos_id, temperature=temperature)


def file_name(name: str) -> str:
    return f"pretrained_{name}.npz"
