"""EarlyStopping and KLStop: when they stop, by hand-computed sequences, and what a checkpoint keeps of them."""

import json
import math
import types
import warnings

import pytest
from small_runs import data, make

from artifex_rl.callbacks import EarlyStopping, KLStop

NAN, INF = math.nan, math.inf


def stopped_at(callback, values, name, hook="on_train_batch_end"):
    """The first step after which the callback stops a run that shows these values; None if it lets it end."""
    trainer = types.SimpleNamespace(should_stop=False, step=0, callbacks=())
    callback.on_train_begin(trainer)
    for step, value in enumerate(values):
        trainer.step = step + 1
        getattr(callback, hook)(trainer, {name: value, "loss": 0.5}, step)
        if trainer.should_stop:
            assert callback.stopped_step == step and callback.reason
            return step
    assert callback.reason is None and callback.stopped_step == -1
    return None


@pytest.mark.parametrize(
    ("settings", "values", "expected", "reason"),
    [
        ({"patience": 2}, [3, 2, 1, 1, 1, 1], 4, "not improved for 2 values; best: 1 at step 2"),
        ({"patience": 3}, [1, 2, 3, 0.5, 2, 3], None, None),
        ({"patience": 2, "mode": "max"}, [1, 2, 1.5, 1.9, 9], 3, "best: 2 at step 1"),
        (
            {"patience": 2, "min_delta": 0.5},
            [3, 2.6, 2.5, 0],
            2,
            "best: 3 at step 0",
        ),  # 0.5 less is no more than 0.5
        ({"patience": 2, "min_delta": 0.5}, [3, 2.4, 1.8, 1.2], None, None),
        ({"patience": 1}, [1, 1], 1, "not improved for 1 values"),
        ({"divergence_threshold": 5.0}, [3, 5, 5.1, 0], 2, "5.1, worse than 5"),
        ({"divergence_threshold": 0.1, "mode": "max"}, [0.5, 0.1, 0.05], 2, "0.05, worse than 0.1"),
        ({}, [1, NAN, 0], 1, "is nan"),
        ({"mode": "max"}, [1, INF], 1, "is inf"),
        ({"patience": 2, "check_finite": False}, [3, NAN, 2, NAN, -INF, 1], 4, "best: 2 at step 2"),
        ({"patience": 2, "check_finite": False}, [NAN, NAN], 1, "no number so far"),
        ({"divergence_threshold": 5.0, "check_finite": False}, [1, NAN], 1, "is nan, worse than 5"),
    ],
)
def test_early_stopping_stops_after_the_step_that_the_definition_says(settings, values, expected, reason):
    callback = EarlyStopping("score", **settings)
    assert stopped_at(callback, values, "score") == expected
    assert (reason is None) == (callback.reason is None) and (reason or "") in (callback.reason or "")
    assert stopped_at(EarlyStopping("val_score", **settings), values, "val_score", "on_validation_end") == expected


def test_a_run_in_two_pieces_stops_where_the_whole_would():
    for make_one in (lambda: EarlyStopping("score", patience=3), lambda: KLStop(1.0, window=3, monitor="score")):
        values = [3, 2, 0.4, 0.5, 0.6, 2.0, 9]
        whole, first, second = make_one(), make_one(), make_one()
        expected = stopped_at(whole, values, "score")
        assert expected is not None and stopped_at(first, values[: expected - 1], "score") is None
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert stopped_at(second, values[expected - 1 :], "score") == 1


def test_stopped_again_at_once_if_nothing_has_changed_and_not_before():
    callback = EarlyStopping("score", patience=2)
    assert stopped_at(callback, [1, 1, 1], "score") == 2
    assert stopped_at(callback, [1], "score") == 0
    assert stopped_at(callback, [0.5, 0.5, 0.5], "score") == 2


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        (1, [0.1, 0.2, 0.21], 2),
        (3, [0.5, 0.0, 0.0, 0.1, 0.4, 0.4], 5),  # means of three: 0.167, 0.033, 0.167, 0.3
        (3, [0.1, 0.1, 0.5], 2),  # 0.233
        (3, [9.0, 9.0], None),
        (2, [0.0, NAN], 1),
        (2, [0.3, -0.2, 0.3, -0.2], None),
        (5, [INF], 0),
    ],
)
def test_kl_stop_averages_over_its_window(window, values, expected):
    assert stopped_at(KLStop(0.2, window, "kl_penalty"), values, "kl_penalty") == expected


def test_fit_stops_and_says_why():
    callback, trainer = EarlyStopping("loss", patience=1, min_delta=1e9), make()
    assert len(trainer.fit(data(), 50, [callback])["loss"]) == 2
    callback = EarlyStopping(patience=2, min_delta=1e9)  # val_loss
    trainer.fit(data(), 50, [callback], validation=data(4), validate_every=5)
    assert trainer.step == 15 and "val_loss has not improved for 2 values" in callback.reason


def test_a_metric_that_is_not_there_is_named_once_and_nothing_is_stopped():
    for callback in (EarlyStopping("reward"), KLStop(0.1)):
        with pytest.warns(UserWarning) as caught:
            make().fit(data(), 3, [callback])
        (warning,) = caught
        assert all(word in str(warning.message) for word in (callback.monitor, "['error', 'grad_norm', 'loss']"))
        assert warning.filename == __file__
    with pytest.warns(UserWarning, match=r"val_loss: there was no validation, needs fit"):
        make().fit(data(), 3, [EarlyStopping()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().fit(data(), 3, [EarlyStopping()], validation=data(), validate_every=1)


@pytest.mark.parametrize(
    ("make_one", "words"),
    [
        (lambda: EarlyStopping(mode="best"), "mode: got 'best', needs 'min' or 'max'"),
        (lambda: EarlyStopping(patience=0), "patience: got 0"),
        (lambda: EarlyStopping(min_delta=-1), "min_delta: got -1, needs a finite number of at least 0"),
        (lambda: EarlyStopping(divergence_threshold=NAN), "divergence_threshold: got nan, needs a finite number"),
        (lambda: KLStop(0.0), "target_kl: got 0.0, needs more than 0"),
        (lambda: KLStop(0.1, window=1.5), "window: got 1.5"),
    ],
)
def test_settings_are_checked(make_one, words):
    with pytest.raises(ValueError, match=words):
        make_one()
