"""RewardExplorer: the library's composed rewards of real samples, and who wins by them."""

import functools

import numpy as np
import pytest

from artifex_rl import ClippedReward, CompositeReward, ScaledReward, ThresholdReward
from artifex_rl.data.scored_samples import load_scored_digits
from artifex_rl.lab import RewardExplorer
from artifex_rl.lab.reward_explorer import SIDE, WINNERS

DIGITS = load_scored_digits()
NAMES = ("ink", "small", "legible")
SCORES = {
    name: (getattr(DIGITS, name) - getattr(DIGITS, name).mean()) / getattr(DIGITS, name).std() for name in NAMES
}


@functools.cache
def begun():
    """The explorer, and how it stands at first: made by the first test, and not by each worker that reads this."""
    explorer = RewardExplorer()
    return explorer, explorer.knobs


def moved(**knobs):
    explorer, start = begun()
    explorer.set(**{**start, **knobs})
    return explorer.curves()


def shown(curves):
    """The images of the winners, read back from the lengths of the strokes."""
    strokes = curves["pictures"].reshape(WINNERS, SIDE, SIDE, 3)
    return strokes[..., 1] - strokes[..., 0]


@pytest.mark.parametrize(
    ("weights", "scale", "threshold"),
    [((1, 0, 0), 1, 0.5), ((-2, 0.5, 1.3), 2, -1.2), ((0, 0, -1), 0.3, 3), ((0.7, 0.7, 0.7), 1.5, 0)],
)
def test_the_curves_are_the_librarys_rewards_best_first(weights, scale, threshold):
    named = {f"weight_{name}": weight for name, weight in zip(NAMES, weights, strict=True)}
    curves = moved(**named, scale=scale, threshold=threshold)
    columns = [lambda samples, conditions=None, name=name: SCORES[name].astype(np.float32) for name in NAMES]
    reward = ScaledReward(CompositeReward(columns, weights), scale)
    samples = np.zeros((95, 1))
    for name, whole in (
        ("total", reward),
        ("clipped", ClippedReward(reward)),
        ("passes", ThresholdReward(reward, threshold)),
    ):
        np.testing.assert_allclose(curves[name], np.sort(whole(samples))[::-1], atol=1e-4)
    np.testing.assert_allclose(curves["threshold"], threshold)


def test_the_winners_are_the_extreme_samples():
    curves = moved()
    best = np.argsort(-SCORES["ink"], kind="stable")[:WINNERS]
    np.testing.assert_allclose(curves["winners"], np.stack([SCORES["ink"], SCORES["small"]], axis=1)[best], atol=1e-4)
    np.testing.assert_allclose(shown(curves), DIGITS.images[best] / 16, atol=1e-6)
    means = dict(zip(sorted(NAMES), curves["profile"][1::3], strict=True))
    assert means == pytest.approx({name: SCORES[name][best].mean() for name in NAMES}, abs=1e-3)
    turned = moved(weight_ink=-1)
    least = np.argsort(SCORES["ink"], kind="stable")[:WINNERS]
    np.testing.assert_allclose(shown(turned), DIGITS.images[least] / 16, atol=1e-6)


def test_ink_alone_is_bought_with_large_files():
    """What is not rewarded is paid with: the reason for a second weight."""
    moved()
    curves = begun()[0].curves()
    ink, _, small = curves["profile"][1::3]
    assert ink > 1.5 and small < -1
    curves = moved(weight_ink=1, weight_small=1)
    assert curves["profile"][1::3][2] > small + 0.5


def test_neither_scale_nor_threshold_changes_who_wins_but_the_clip_hides_it():
    for knobs in ({"scale": 2}, {"threshold": -3}):
        np.testing.assert_array_equal(moved(**knobs)["winners"], moved()["winners"])
    flat = [(moved(scale=s)["clipped"] >= 1).sum() for s in (0.3, 1, 2)]
    assert flat == sorted(flat) and flat[0] < 10 < flat[-1]


def test_a_scale_of_0_leaves_nothing_to_learn():
    curves = moved(scale=0)
    assert (curves["total"] == 0).all() and (curves["passes"] == 0).all()


def test_it_takes_scores_of_ones_own_without_pictures():
    rng = np.random.default_rng(0)
    explorer = RewardExplorer({"speed": rng.normal(size=20), "comfort": rng.normal(size=20)})
    assert "pictures" not in explorer.curves() and "comfort" in explorer.summary()
    explorer.set(weight_speed=0, weight_comfort=2)
    assert (np.diff(explorer.curves()["total"]) <= 0).all()


TWENTY = np.arange(20.0)


@pytest.mark.parametrize(
    ("scores", "images", "said"),
    [
        ({"a": TWENTY}, None, "scores: got"),
        ([TWENTY, TWENTY], None, "scores: got list"),
        ({"a b": TWENTY, "c": TWENTY}, None, "scores: got the name 'a b'"),
        ({"a": TWENTY, "b": TWENTY[:-1]}, None, "scores['b']: got shape (19,)"),
        ({"a": TWENTY, "b": TWENTY * np.nan}, None, "scores['b']: got 20 NaN"),
        ({"a": TWENTY, "b": TWENTY * 0}, None, "scores['b']: got 0 for every sample"),
        ({"a": TWENTY[:3], "b": TWENTY[:3]}, None, "scores: got shape (3,)"),
        ({"a": TWENTY, "b": TWENTY}, np.zeros((20, 4, 4)), "images: got shape (20, 4, 4)"),
    ],
)
def test_scores_that_do_not_fit_are_named(scores, images, said):
    with pytest.raises(ValueError) as caught:
        RewardExplorer(scores, images)
    assert str(caught.value).startswith(said)
