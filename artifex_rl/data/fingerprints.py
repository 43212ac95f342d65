"""Fingerprints of everything that the notebooks learn from, so that another version of it does not go unnoticed.

`python -m artifex_rl.data.fingerprints` writes them anew, after data has changed on purpose. Files of this package
are known by their SHA-256; what other packages hold, by that of the words, pictures and ratings that come out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files

FILE_NAME = "fingerprints.json"


def read() -> dict[str, dict[str, str]]:
    """The fingerprints that the course was made with: `{"files": {name: digest}, "loaded": {name: text}}`."""
    return json.loads(files("artifex_rl.data").joinpath(FILE_NAME).read_text("utf-8"))


def compute_files() -> dict[str, str]:
    """SHA-256 of each data file of the package. Ends of lines in texts count as one byte on every system."""
    found = {}
    for file in sorted(files("artifex_rl.data").iterdir(), key=lambda file: file.name):
        if file.name.endswith((".npz", ".txt")):
            data = file.read_bytes()
            text = file.name.endswith(".txt")
            found[file.name] = hashlib.sha256(data.replace(b"\r\n", b"\n") if text else data).hexdigest()
    return found


def _digits() -> str:
    from artifex_rl.data import load_digits

    train, heldout = load_digits()
    pixels = b"".join(((part.images + 1) * 8).astype("uint8").tobytes() for part in (train, heldout))
    shapes = " and ".join(str(part.images.shape) for part in (train, heldout))
    return f"{shapes}, {_digest([pixels])}"


def _words() -> str:
    from artifex_rl.data import LANGUAGES, load_words

    words = [word for language in LANGUAGES for part in load_words(language) for word in part]
    return f"{len(words)} words, {_digest(word.encode() for word in words)}"


def _ratings() -> str:
    from artifex_rl.data import load_ratings

    parts = load_ratings()
    words = [word for part in parts for word in part.words]
    ratings = [part.ratings.astype("int8").tobytes() for part in parts]
    return f"{len(words)} rated words, {_digest([*(word.encode() for word in words), *ratings])}"


def _scorer() -> str:
    from artifex_rl.data.words import _probabilities

    words = ("thought", "zione", "und", "talossa")
    return "; ".join(f"{word} {' '.join(f'{value:.2f}' for value in _probabilities(word))}" for word in words)


#: What comes out of the packages of the extra `data`: the package, and how to know it.
LOADED: dict[str, Callable[[], str]] = {
    "scikit-learn": _digits,
    "wordfreq": _words,
    "vaderSentiment": _ratings,
    "py3langid": _scorer,
}


def compute_loaded() -> dict[str, str]:
    """What each package of the extra `data` gives, by the package's name.

    Raises:
        ImportError: one of them is not installed.
    """
    return {name: fingerprint() for name, fingerprint in LOADED.items()}


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def main() -> None:
    text = json.dumps({"files": compute_files(), "loaded": compute_loaded()}, indent=1, ensure_ascii=False)
    with files("artifex_rl.data").joinpath(FILE_NAME).open("w", encoding="utf-8") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
