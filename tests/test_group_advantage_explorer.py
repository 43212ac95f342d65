"""GroupAdvantageExplorer: the library's advantages at every size and scale, and which groups are silent."""

import functools

import numpy as np
import pytest

from artifex_rl import compute_group_advantages
from artifex_rl.data.scored_samples import load_scored_words
from artifex_rl.lab import GroupAdvantageExplorer
from artifex_rl.lab.group_advantage_explorer import RATIOS

REWARDS = load_scored_words().group_rewards
explorer = functools.cache(GroupAdvantageExplorer)  # made by the first test, and not by each worker that reads this


def moved(**knobs):
    explorer().set(**{"group_size": 8, "scale": "group", "bonus": 0, "clip_param_high": 0.2, **knobs})
    return explorer().curves()


def tops(curves, name, size=16):
    """Heights of the bars, `(4, size)`; NaN where there is none."""
    return np.stack([curves[f"{name}_{row}"][1::3, 1] for row in range(4)])[:, :size]


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize(("size", "bonus"), [(2, 0), (5, 1.5), (8, 0), (16, 3)])
def test_advantages_are_the_librarys(scale, size, bonus):
    curves = moved(group_size=size, scale=scale, bonus=bonus)
    rewards = REWARDS[:, :size].copy()
    rewards[0, 0] += bonus
    np.testing.assert_array_equal(tops(curves, "rewards", size), rewards)
    expected = compute_group_advantages(rewards.reshape(-1), size, scale).reshape(4, size)
    np.testing.assert_allclose(tops(curves, "advantages", size), expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(tops(curves, "advantages")[:, size:]).all()


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_a_group_of_equal_rewards_is_marked_and_exactly_0(scale):
    for size in (2, 4, 8, 16):
        curves = moved(group_size=size, scale=scale)
        silent = np.ptp(REWARDS[:, :size], axis=1) == 0
        marked = [bool(np.isfinite(curves[f"zero_{row}"]).all()) for row in range(4)]
        assert marked == silent.tolist()
        assert (tops(curves, "advantages", size)[silent] == 0).all()
        assert f"{silent.sum()} of 4 groups teach nothing" in explorer().summary()


def test_the_built_in_groups_go_silent_as_they_shrink():
    silent = [int((np.ptp(REWARDS[:, :size], axis=1) == 0).sum()) for size in (16, 8, 4, 2)]
    assert silent == sorted(silent) and silent[0] == 1 and silent[-1] >= 2


def test_the_single_success_gets_the_square_root_of_its_rarity():
    curves = moved(group_size=8)
    german = tops(curves, "advantages", 8)[2]
    assert REWARDS[2, :8].sum() == 1
    np.testing.assert_allclose(german.max(), np.sqrt(7), rtol=1e-5)
    np.testing.assert_allclose(tops(moved(group_size=8, scale="none"), "advantages", 8)[2].max(), 7 / 8, rtol=1e-5)


def test_an_outlier_squeezes_its_group_and_by_batch_all_others():
    calm, wild = (tops(moved(bonus=b), "advantages", 8) for b in (0, 3))
    assert wild[0, 1:].max() < 0.5 * calm[0, 1:].max()
    np.testing.assert_array_equal(wild[1:], calm[1:])
    calm, wild = (tops(moved(bonus=b, scale="batch"), "advantages", 8) for b in (0, 3))
    np.testing.assert_allclose(wild[1:], calm[1:] * (wild[2].max() / calm[2].max()), atol=1e-6)
    assert wild[2].max() < 0.9 * calm[2].max()


@pytest.mark.parametrize("high", [0.0, 0.2, 0.28, 0.8])
def test_the_push_is_the_ratio_times_the_advantage_until_the_clip(high):
    curves = moved(clip_param_high=high)
    best = np.nanmax(tops(curves, "advantages"), axis=1)
    clear = np.abs(RATIOS - 1 - high) > 2e-3
    for row in range(4):
        expected = np.where(1 + high > RATIOS, RATIOS * best[row], 0)
        np.testing.assert_allclose(curves[f"push_{row}"][clear], expected[clear], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_it_takes_groups_of_ones_own():
    explorer = GroupAdvantageExplorer([[1.0, 2.0, 6.0]], prompts=["why?"])
    assert "why? " in explorer.summary()
    np.testing.assert_allclose(
        explorer.curves()["advantages_0"][1::3, 1], compute_group_advantages([1.0, 2.0, 6.0], 3), rtol=1e-5
    )
    assert GroupAdvantageExplorer([[1.0, 2.0], [3.0, 3.0]]).group_size == 2


@pytest.mark.parametrize(
    ("rewards", "prompts", "said"),
    [
        (np.ones(4), None, "rewards"),
        (np.ones((5, 4)), None, "rewards"),
        (np.ones((2, 1)), None, "rewards"),
        (np.ones((2, 17)), None, "rewards"),
        ([[1.0, np.nan]], None, "rewards"),
        ([[1.0, 0.0]], ["a", "b"], "prompts"),
    ],
)
def test_what_are_no_groups_is_refused(rewards, prompts, said):
    with pytest.raises(ValueError, match=f"^{said}: got"):
        GroupAdvantageExplorer(rewards, prompts)
