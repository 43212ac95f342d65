"""ModelCheckpoint: which checkpoints are kept, and that a run goes on from them to the bit."""

from __future__ import annotations

import math
import warnings

import jax
import numpy as np
import pytest
from checkpointed import Counter, LineConfig, digest, line_data, make_line

from artifex_rl.callbacks import Callback, CheckpointConfig, ModelCheckpoint
from artifex_rl.callbacks.checkpoint_config import SavedCheckpoint

NAN, INF = math.nan, math.inf


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def steps(folder):
    return [int(name[5:]) for name in names(folder)]


def play(trainer, checkpoint, values, name="score"):
    """The guide's loop over made-up metrics: the k-th value is that of step k, counted from 1."""
    checkpoint.on_train_begin(trainer)
    for step, value in enumerate(values):
        trainer.step += 1
        checkpoint.on_train_batch_end(trainer, {"loss": 0.0} if value is None else {name: value}, step)
    checkpoint.on_train_end(trainer)


def settings(folder, **options):
    return CheckpointConfig(folder, **{"monitor": "score", "mode": "max", **options})


# Which are kept


@pytest.mark.parametrize(
    ("values", "options", "kept"),
    [
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=3), [5, 6, 8]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=3, mode="min"), [2, 4, 7]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=1), [6]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=-1), [1, 2, 3, 4, 5, 6, 7, 8]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=0, save_last=True), [8]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=0), []),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=2, every_n_steps=3), [6, 8]),  # of 3, 6 and the end
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=1, save_last=True), [6, 8]),
        ([3, 1, 4, 1, 5, 9, 2, 6], dict(save_top_k=2, monitor=None), [7, 8]),
        ([1, NAN, INF, 0, -INF], dict(save_top_k=3), [1, 4]),
        ([NAN, 2, NAN, 1], dict(save_top_k=1, mode="min"), [4]),
        ([7, 7, 7], dict(save_top_k=2), [1, 2]),  # of equal ones the earlier
        ([NAN, NAN], dict(save_top_k=1), [2]),  # nothing to rank: the last is better than nothing
    ],
)
def test_the_k_best_are_kept(tmp_path, values, options, kept):
    play(make_line(), ModelCheckpoint(settings(tmp_path / "run", **options)), values)
    assert steps(tmp_path / "run") == kept


def test_the_k_best_of_any_values_are_those_of_a_sorted_list():
    """The rule alone, with no disk: at every step those that stay are the k best so far."""
    rng = np.random.default_rng(0)
    for k in (1, 2, 5):
        rule, saved = CheckpointConfig("run", monitor="score", mode="max", save_top_k=k), []
        values = rng.integers(0, 12, size=60).astype(float)
        for step, value in enumerate(values, start=1):
            if rule.is_among_the_best({"score": value}, step, saved):
                saved = rule.to_keep([*saved, SavedCheckpoint(step, None, {"score": value})], keep_newest=False)
            best = sorted(range(1, step + 1), key=lambda s: (-values[s - 1], s))[:k]
            assert [one.step for one in saved] == best


def test_best_and_last_say_what_they_are_and_can_be_restored(tmp_path):
    checkpoint = ModelCheckpoint(settings(tmp_path / "run", save_top_k=2, save_last=True))
    assert checkpoint.best is None and checkpoint.last is None
    trainer = make_line()
    trainer.fit(line_data(), steps=6, batch_size=4, callbacks=[checkpoint])
    history = make_line().fit(line_data(), steps=6, batch_size=4)["score"]
    assert checkpoint.best.step == np.argmax(history) + 1
    assert checkpoint.best.metrics["score"] == pytest.approx(history.max(), abs=1e-6)
    assert checkpoint.last.step == 6

    again = make_line()
    assert checkpoint.restore(again, checkpoint.last) == checkpoint.last
    assert digest(again) == digest(trainer)
    assert checkpoint.restore(again).step == again.step == checkpoint.best.step
    other = make_line()
    other.restore(checkpoint.best.path)  # it is a folder as Trainer.save writes them
    assert digest(other) == digest(again)
    with pytest.raises(FileNotFoundError, match="no checkpoint with a finite score"):
        ModelCheckpoint(settings(tmp_path / "elsewhere")).restore(again)


def test_a_missing_metric_warns_once_and_names_those_there_are(tmp_path):
    trainer, checkpoint = make_line(), ModelCheckpoint(settings(tmp_path / "run", monitor="mean_rewrd"))
    with pytest.warns(UserWarning, match="mean_rewrd") as caught:
        trainer.fit(line_data(), steps=3, batch_size=4, callbacks=[checkpoint])
    (warning,) = [one for one in caught if "mean_rewrd" in str(one.message)]
    assert "error, grad_norm, loss, score" in str(warning.message) and warning.filename == __file__
    assert steps(tmp_path / "run") == [3]


def test_a_metric_that_comes_late_is_ranked_when_it_comes(tmp_path):
    checkpoint = ModelCheckpoint(settings(tmp_path / "run", save_top_k=2))
    with pytest.warns(UserWarning, match="there are loss"):
        play(make_line(), checkpoint, [None, 2.0, None, 1.0, 3.0])
    assert steps(tmp_path / "run") == [2, 5]


def test_metrics_of_validations_are_ranked_in_fit_and_by_hand(tmp_path):
    data, rule = line_data(), settings(tmp_path / "fit", monitor="val_loss", mode="min", save_top_k=2)
    trainer, checkpoint = make_line(), ModelCheckpoint(rule)
    values = iter([5.0, 3.0, 4.0])
    fit = dict(batch_size=4, validation=lambda trainer: {"loss": next(values)}, validate_every=3)
    trainer.fit(data, steps=9, callbacks=[checkpoint], **fit)
    assert steps(tmp_path / "fit") == [6, 9] and checkpoint.best.metrics["val_loss"] == 3.0

    rule = settings(tmp_path / "hand", monitor="val_loss", mode="min", save_top_k=1, save_last=True)
    trainer, checkpoint = make_line(), ModelCheckpoint(rule)
    checkpoint.on_train_begin(trainer)
    for step, value in enumerate([2.0, 1.0, 3.0]):
        trainer.step += 1
        checkpoint.on_train_batch_end(trainer, {"loss": 0.0}, step)
        checkpoint.on_validation_end(trainer, {"val_loss": value}, step)
    checkpoint.on_train_end(trainer)
    assert steps(tmp_path / "hand") == [2, 3]
    again = ModelCheckpoint(settings(tmp_path / "hand", monitor="val_loss", mode="min", resume="auto"))
    again.on_train_begin(make_line())
    assert [one.metrics["val_loss"] for one in again.saved] == [1.0, 3.0]
    again.on_train_end(trainer)


def test_validation_that_never_comes_is_said_at_the_end(tmp_path):
    checkpoint = ModelCheckpoint(settings(tmp_path / "run", monitor="val_loss"))
    with pytest.warns(UserWarning, match="no metric is called 'val_loss'; there are score"):
        play(make_line(), checkpoint, [1.0, 2.0])
    assert steps(tmp_path / "run") == [2]


def test_within_a_compiled_call_only_the_last_step_is_saved_and_under_its_own_name(tmp_path):
    trainer, checkpoint = make_line(), ModelCheckpoint(settings(tmp_path / "run", save_top_k=-1, every_n_steps=3))
    history = trainer.fit(line_data(), steps=10, steps_per_call=4, callbacks=[checkpoint])
    assert steps(tmp_path / "run") == [4, 8, 10]  # 3, 6 and 9 lay within calls
    assert [one.metrics["score"] for one in checkpoint.saved] == [history["score"][i] for i in (3, 7, 9)]
    for saved in checkpoint.saved:
        alone = make_line()
        alone.fit(line_data(), steps=saved.step, steps_per_call=4)
        assert digest(checkpoint.restore(alone, saved) and alone) == digest(alone)


# Going on


class Killed(BaseException):
    """As a SIGKILL: nobody has time to save anything."""


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_checkpoint(self, trainer):
        if trainer.step == self.step:
            raise Killed


ROUTES = {
    "rows": lambda t, **o: t.fit(line_data(), steps=14, batch_size=4, **o),
    "calls of three": lambda t, **o: t.fit(line_data(), steps=14, batch_size=4, steps_per_call=3, **o),
    "one batch": lambda t, **o: t.fit(line_data(4), steps=14, **o),
    "a list": lambda t, **o: t.fit(batches(5), steps=14, **o),
    "one pass": lambda t, **o: t.fit(batches(14), **o),
    "a generator": lambda t, **o: t.fit((batch for batch in batches(20)), steps=14, **o),
}


def batches(count):
    whole = line_data(4 * count)
    return [{name: value[4 * i : 4 * i + 4] for name, value in whole.items()} for i in range(count)]


QUICK = {("rows", "first"), ("a list", "last")}


@pytest.mark.parametrize(
    ("route", "place"),
    [
        pytest.param(route, place, marks=[] if (route, place) in QUICK else [pytest.mark.slow])
        for route in ROUTES
        for place in ("first", "last")
    ],
)
def test_a_killed_run_goes_on_to_the_bit(tmp_path, route, place):
    """Wherever it stands in the list: the others' states are of the same step as the model."""

    def run(folder, kill=None):
        trainer, counter = make_line(), Counter()
        rule = settings(folder, every_n_steps=3, resume="auto", save_on_exception=False)
        callbacks = [counter, *([KillAt(kill)] if kill else [])]
        callbacks.insert(0 if place == "first" else len(callbacks), ModelCheckpoint(rule))
        try:
            ROUTES[route](trainer, callbacks=callbacks)
        except Killed:
            return None
        return digest(trainer, counter), names(folder)

    truth = run(tmp_path / "truth")
    first, second = (6, 12) if route == "calls of three" else (7, 11)
    assert run(tmp_path / "run", kill=first) is None
    assert run(tmp_path / "run", kill=second) is None
    assert run(tmp_path / "run") == truth
    assert run(tmp_path / "run") == truth  # what is done is not done again


def test_a_loop_by_hand_goes_on_to_the_bit(tmp_path):
    def run(folder, kill=None):
        trainer, counter = make_line(), Counter()
        checkpoint = ModelCheckpoint(settings(folder, every_n_steps=3, resume="auto"))
        callbacks = trainer.callbacks = [counter, checkpoint]
        for callback in callbacks:
            callback.on_train_begin(trainer)
        for step, batch in enumerate(batches(10)):
            if step < trainer.step:
                continue
            metrics = trainer.train_step(batch)
            for callback in callbacks:
                callback.on_train_batch_end(trainer, metrics, step)
            if trainer.step == kill:
                return None
        for callback in callbacks:
            callback.on_train_end(trainer)
        return digest(trainer, counter), names(folder)

    truth = run(tmp_path / "truth")
    run(tmp_path / "run", kill=5)
    assert run(tmp_path / "run") == truth


def test_the_hosts_random_numbers_go_on_too(tmp_path):
    class Dice(Callback):
        thrown = ()

        def on_train_batch_end(self, trainer, metrics, step):
            import random

            self.thrown += (np.random.random(), random.random())

    def run(folder, steps):
        np.random.seed(0)
        dice = Dice()
        rule = settings(folder, every_n_steps=4, resume="auto", save_on_exception=False)
        make_line().fit(line_data(4), steps=steps, callbacks=[dice, ModelCheckpoint(rule)])
        return dice.thrown

    import random

    random.seed(0)
    whole = run(tmp_path / "whole", 8)
    random.seed(0)
    first = run(tmp_path / "run", 4)
    random.seed(9)
    assert first + run(tmp_path / "run", 8) == whole


def test_fit_counts_its_steps_from_where_the_trainer_stood_and_says_so_if_none_is_left(tmp_path):
    rule = settings(tmp_path / "run", resume="auto")
    make_line().fit(line_data(4), steps=5, callbacks=[ModelCheckpoint(rule)])
    trainer = make_line()
    history = trainer.fit(line_data(4), steps=8, callbacks=[ModelCheckpoint(rule)])
    assert trainer.step == 8 and len(history["loss"]) == 3
    trainer = make_line()
    with pytest.warns(UserWarning, match="of step 8, beyond the last, 4"):
        assert trainer.fit(line_data(4), steps=4, callbacks=[ModelCheckpoint(rule)]) == {}
    assert trainer.step == 8


def test_one_object_goes_on_in_its_own_folder(tmp_path):
    trainer, checkpoint = make_line(), ModelCheckpoint(settings(tmp_path / "run", save_top_k=-1))
    trainer.fit(line_data(4), steps=2, callbacks=[checkpoint])
    trainer.fit(line_data(4), steps=2, callbacks=[checkpoint])
    assert steps(tmp_path / "run") == [1, 2, 3, 4]
    with pytest.raises(FileExistsError, match="resume"):
        make_line().fit(line_data(4), steps=2, callbacks=[checkpoint])


def test_a_config_that_has_been_changed_since_is_said(tmp_path):
    rule = settings(tmp_path / "run", resume="auto")
    trainer = make_line()
    trainer.fit(line_data(4), steps=2, callbacks=[ModelCheckpoint(rule)])
    trainer = make_line()
    trainer.config = LineConfig(noise=0.5)
    with pytest.warns(UserWarning, match=r"noise was 0\.1 and is 0\.5"):
        trainer.fit(line_data(4), steps=3, callbacks=[ModelCheckpoint(rule)])
    assert trainer.config.noise == 0.1

    class Anneal(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            trainer.config = LineConfig(noise=0.1 / (step + 2))

    rule = settings(tmp_path / "annealed", resume="auto")
    make_line().fit(line_data(4), steps=2, callbacks=[Anneal(), ModelCheckpoint(rule)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_line().fit(line_data(4), steps=3, callbacks=[Anneal(), ModelCheckpoint(rule)])


def test_what_an_error_leaves_is_saved(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 4:
                raise KeyboardInterrupt

    trainer, folder = make_line(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(line_data(4), steps=9, callbacks=[ModelCheckpoint(settings(folder, every_n_steps=3)), Fails()])
    assert steps(folder)[-1] == 5
    other = make_line()
    other.restore(folder / "step_00000005")
    assert digest(other) == digest(trainer)

    quiet = settings(tmp_path / "other", every_n_steps=3, save_top_k=-1, save_on_exception=False)
    with pytest.raises(KeyboardInterrupt):
        make_line().fit(line_data(4), steps=9, callbacks=[ModelCheckpoint(quiet), Fails()])
    assert steps(tmp_path / "other") == [3]


# What is refused, before anything changes


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def test_a_used_folder_is_an_error_without_resume(tmp_path):
    folder = tmp_path / "run"
    make_line().fit(line_data(4), steps=2, callbacks=[ModelCheckpoint(settings(folder))])
    before, trainer = contents(folder), make_line()
    untouched = digest(trainer)
    with pytest.raises(FileExistsError, match=r'run holds 1 checkpoints.*resume="auto"'):
        trainer.fit(line_data(4), steps=2, callbacks=[ModelCheckpoint(settings(folder))])
    assert contents(folder) == before and digest(trainer) == untouched


@pytest.mark.parametrize("resume", [None, "auto"])
def test_checkpoints_of_something_else_are_no_place_to_write(tmp_path, resume):
    make_line().save(tmp_path / "run" / "100")
    before = contents(tmp_path)
    for folder in (tmp_path / "run", tmp_path / "run" / "100"):
        with pytest.raises(FileExistsError, match="something else than ModelCheckpoint"):
            make_line().fit(line_data(4), steps=2, callbacks=[ModelCheckpoint(settings(folder, resume=resume))])
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file, needs a folder"):
        make_line().fit(
            line_data(4), steps=2, callbacks=[ModelCheckpoint(settings(tmp_path / "file", resume=resume))]
        )
    (tmp_path / "file").unlink()
    assert contents(tmp_path) == before


def test_a_state_that_is_no_json_is_named_at_once(tmp_path):
    class Holds(Callback):
        def state_dict(self):
            return {"value": np.float32(1), "more": np.zeros(3)}

    with pytest.raises(TypeError, match=r"Holds\.state_dict: .*ndarray"):
        make_line().fit(line_data(4), steps=2, callbacks=[Holds(), ModelCheckpoint(settings(tmp_path / "run"))])
    assert not (tmp_path / "run").exists()


def test_a_loop_that_never_began_is_told(tmp_path):
    checkpoint = ModelCheckpoint(settings(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="on_train_begin"):
        checkpoint.on_train_batch_end(make_line(), {"score": 1.0}, 0)
    with pytest.raises(TypeError, match="score is str, needs a number"):
        checkpoint.on_train_batch_end(make_line(), {"score": "high"}, 0)


@pytest.mark.parametrize(
    ("field", "value", "needs"),
    [
        ("dirpath", "", "the path of a folder"),
        ("dirpath", 3, "the path of a folder"),
        ("monitor", "", "the name of a metric, or None"),
        ("mode", "maximum", "'min' or 'max'"),
        ("save_top_k", -2, "an integer of at least -1"),
        ("save_top_k", True, "an integer of at least -1"),
        ("every_n_steps", 0, "an integer of at least 1"),
        ("save_last", "yes", "True, False or None"),
        ("resume", True, "None or 'auto'"),
    ],
)
def test_settings_are_checked(field, value, needs):
    with pytest.raises(ValueError, match=rf"CheckpointConfig\.{field}: got .*, needs {needs}"):
        CheckpointConfig(**{field: value})
    with pytest.raises(TypeError, match="config: got dict, needs CheckpointConfig"):
        ModelCheckpoint({"dirpath": "run"})


def test_the_guides_settings_are_read(tmp_path):
    rule = CheckpointConfig(dirpath=str(tmp_path), monitor="mean_reward", mode="max", save_top_k=1)
    assert not rule.keeps_last and CheckpointConfig(resume="auto").keeps_last
    assert jax.tree.leaves(rule) == []
