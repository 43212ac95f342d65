"""Pages of the site point at lines of code by their words; what is not there, or there twice, is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from source_lines import PACKAGE, find_line  # noqa: E402

ROLES = [
    (path.relative_to(ROOT).as_posix(), found)
    for path in sorted((ROOT / "docs").rglob("*.md"))
    for found in re.findall(r"\{line\}`([^`]+)`", path.read_text("utf-8"))
]


def test_every_line_that_a_page_points_at_is_there():
    for page, text in ROLES:
        try:
            find_line(text)
        except ValueError as error:
            pytest.fail(f"{page}: {error}")


def test_a_line_is_found_by_its_words():
    path, number = find_line('rl/ppo.py "class PPOTrainer(RLTrainer):"')
    assert (PACKAGE / path).read_text("utf-8").splitlines()[number - 1] == "class PPOTrainer(RLTrainer):"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rl/ppo.py", 'needs a file and words of a line, as in rl/ppo.py "ratio = jnp.exp"'),
        ('rl/poo.py "class"', "got rl/poo.py, needs a file of artifex_rl/"),
        ('rl/ppo.py "no such words"', r"in 0 lines of rl/ppo.py, needs exactly one"),
        ('rl/ppo.py "import"', r"in \d+ lines of rl/ppo.py \(3, 5, .*\), needs exactly one"),
    ],
)
def test_what_points_nowhere_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        find_line(text)
