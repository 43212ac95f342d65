"""The loop: which hook is called when, what the model is then, and that an error costs nobody the end."""

import numpy as np
import pytest
from small_runs import data, make

from artifex_rl.callbacks import Callback, EarlyStopping

WHOLE = ("on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_validation_end", "on_epoch_end")


class Diary(Callback):
    """Writes down every call: the hook without "on_", where the trainer stood, and the rest but for metrics."""

    def __init__(self, pages=None):
        self.pages = [] if pages is None else pages

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda trainer, *rest: self.pages.append(
            (name[3:], trainer.step, *(x for x in rest if not isinstance(x, dict)))
        )

    def of(self, *hooks):
        return [page for page in self.pages if page[0] in hooks]


def test_epochs_of_a_dataset_begin_and_end_and_are_validated():
    diary, trainer = Diary(), make()
    trainer.fit(data(9), 5, [diary], batch_size=4, validation=data(4))
    assert diary.pages == [
        ("train_begin", 0),
        ("epoch_begin", 0, 0),
        ("train_batch_end", 1, 0),
        ("checkpoint", 1),
        ("train_batch_end", 2, 1),
        ("validation_end", 2, 1),
        ("epoch_end", 2, 0),
        ("checkpoint", 2),  # of what all of them know
        ("epoch_begin", 2, 1),
        ("train_batch_end", 3, 2),
        ("checkpoint", 3),
        ("train_batch_end", 4, 3),
        ("validation_end", 4, 3),
        ("epoch_end", 4, 1),
        ("checkpoint", 4),
        ("epoch_begin", 4, 2),
        ("train_batch_end", 5, 4),
        ("checkpoint", 5),
        ("train_end", 5),
    ]
    diary.pages.clear()
    trainer.fit(data(9), 1, [diary], batch_size=4)  # within the third epoch, and to its end
    assert diary.pages[1:-2] == [("epoch_begin", 5, 2), ("train_batch_end", 6, 5), ("epoch_end", 6, 2)]


def test_a_call_of_many_steps_ends_where_there_is_something_to_validate():
    diary = Diary()
    make().fit(data(8), 7, [diary], batch_size=4, steps_per_call=100, validation=data(4), validate_every=3)
    assert diary.of("train_batch_end") == [
        ("train_batch_end", end, i) for i, end in enumerate([3] * 3 + [6] * 3 + [7])
    ]
    assert diary.of("validation_end") == [("validation_end", 3, 2), ("validation_end", 6, 5)]
    assert [page[2] for page in diary.of("epoch_begin")] == [0, 1, 2, 3]
    assert [page[2] for page in diary.of("epoch_end")] == [0, 1, 2]


@pytest.mark.parametrize("sized", [True, False])
def test_an_epoch_of_an_iterable_is_one_reading_of_it(sized):
    batches = [data(seed=i) for i in range(3)]
    diary = Diary()
    if sized:
        make().fit(batches, 4, [diary], validation=data(4))
    else:
        make().fit((batch for batch in batches), callbacks=[diary], validation=data(4))
    epochs = [page[::2] for page in diary.of("epoch_begin", "epoch_end", "validation_end")]
    assert epochs[:3] == [("epoch_begin", 0), ("validation_end", 2), ("epoch_end", 0)]
    assert epochs[3:] == ([("epoch_begin", 1)] if sized else [])
    kept = diary.of("checkpoint", "train_batch_end", "epoch_end")
    assert kept[-1] == ("checkpoint", 4 if sized else 3)
    assert all(
        kept[kept.index(("epoch_end", 3, 0)) + i][0] == name
        for i, name in [(-1, "train_batch_end"), (1, "checkpoint")]
    )


def test_a_single_batch_has_no_epochs():
    diary = Diary()
    make().fit(data(), 3, [diary])
    assert {page[0] for page in diary.pages} == {"train_begin", "train_batch_end", "checkpoint", "train_end"}
    with pytest.raises(ValueError, match=r"validate_every: got None.*no epochs"):
        make().fit(data(), 3, validation=data())


def test_metrics_of_a_validation_are_averages_over_rows_of_the_model_of_that_step():
    class Looks(Callback):
        def on_validation_end(self, trainer, metrics, step):
            small, large = trainer.evaluate(data(2, 1)), trainer.evaluate(data(6, 2))
            assert metrics == {f"val_{k}": pytest.approx((2 * small[k] + 6 * large[k]) / 8) for k in small}
            seen.append(step)

    seen = []
    make().fit(data(), 4, [Looks()], validation=[data(2, 1), data(6, 2)], validate_every=2)
    assert seen == [1, 3]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"validate_every": 2}, "validation: got None beside validate_every=2"),
        ({"validation": data(), "validate_every": 0}, "validate_every: got 0"),
        ({"validation": iter([data()]), "validate_every": 1}, "validation: got list_iterator, needs .* a list"),
        ({"validation": [], "validate_every": 1}, "validation: got list"),
    ],
)
def test_a_validation_that_cannot_be_is_refused_before_anything_is_called(more, words):
    diary = Diary()
    with pytest.raises(ValueError, match=words):
        make().fit(data(), 3, [diary], **more)
    assert diary.pages == []


@pytest.mark.parametrize("hook", WHOLE[1:])
def test_every_hook_may_stop_the_training(hook):
    class Stops(Callback):
        pass

    def stop(self, trainer, *rest):
        trainer.should_stop = trainer.step >= 4

    setattr(Stops, hook, stop)
    diary, trainer = Diary(), make()
    trainer.fit(data(8), 50, [Stops(), diary], batch_size=4, validation=data(4), validate_every=2)
    assert trainer.step == {"on_epoch_begin": 5}.get(hook, 4) and diary.pages[-1] == ("train_end", trainer.step)


def test_a_callback_that_restores_leaves_the_rest_of_the_steps_and_of_the_batches():
    batches = [data(seed=i) for i in range(5)]
    whole, half = make(), make()
    whole.fit(batches, 12)
    half.fit(batches, 7)

    class Restores(Callback):
        def on_train_begin(self, trainer):
            trainer.state = half.state

    def stream():
        yield from batches
        yield from batches
        yield from batches[:2]

    for read in (lambda: batches, stream, lambda: Unsized(batches)):
        diary, again = Diary(), make()
        again.fit(read(), 12, [Restores(), diary])
        assert again.step == 12 and diary.of("train_batch_end")[0] == ("train_batch_end", 8, 7)
        np.testing.assert_array_equal(again.model.kernel[...], whole.model.kernel[...])
    assert diary.of("epoch_begin", "epoch_end") == [
        ("epoch_begin", 7, 1),
        ("epoch_end", 10, 1),
        ("epoch_begin", 10, 2),
    ]
    done = make()
    with pytest.warns(UserWarning, match="of step 7, beyond the last, 6"):
        done.fit(batches, 6, [Restores()])
    assert done.step == 7
    one_pass = make()
    one_pass.fit([*batches, *batches], callbacks=[Restores()])
    assert one_pass.step == 10


class Unsized:
    """May be read again and again, and does not say how many there are."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


# Errors


class Fails(Callback):
    def __init__(self, *hooks, error=OSError):
        for hook in hooks:
            setattr(self, hook, self.fail(hook, error))

    def fail(self, hook, error):
        def fails(*arguments):
            raise error(f"because of {hook}")

        return fails


@pytest.mark.parametrize("hook", WHOLE)
def test_a_callback_that_fails_names_itself_and_everyone_hears_of_the_end(hook):
    pages = []
    before, after = Diary(pages), Diary()
    with pytest.raises(OSError, match=f"because of {hook}") as caught:
        make().fit(data(8), 5, [before, Fails(hook), after], batch_size=4, validation=data(4), validate_every=1)
    assert caught.value.__notes__ == [f"raised by Fails.{hook}"]
    assert [page[0] for page in pages[-2:]] == ["exception", "train_end"] and pages[-2][2] is caught.value
    ended = [page[0] for page in after.pages][-2:]
    assert ended == ([] if hook == "on_train_begin" else ["exception", "train_end"])  # it had not begun


def test_an_error_of_training_runs_every_end_even_if_some_of_them_fail():
    diary, trainer = Diary(), make()
    bad = {**data(), "y": np.full(8, np.nan, np.float32)}
    callbacks = [Fails("on_exception", "on_train_end"), Fails("on_train_end", error=KeyboardInterrupt), diary]
    with pytest.raises(FloatingPointError, match="loss: got nan at step 1") as caught:
        trainer.fit([data(), bad], callbacks=callbacks)
    assert caught.value.__notes__ == [
        "then Fails.on_exception raised OSError: because of on_exception",
        "then Fails.on_train_end raised OSError: because of on_train_end",
        "then Fails.on_train_end raised KeyboardInterrupt: because of on_train_end",
    ]
    assert [page[0] for page in diary.pages[-2:]] == ["exception", "train_end"]
    assert trainer.step == 1 and trainer.callbacks == () and trainer.end_step is None


def test_an_end_that_fails_after_all_went_well_is_raised_when_the_others_have_ended():
    diary, trainer = Diary(), make()
    with pytest.raises(OSError) as caught:
        trainer.fit(data(), 2, [Fails("on_train_end"), Fails("on_train_end"), diary])
    assert caught.value.__notes__ == [
        "raised by Fails.on_train_end",
        "then Fails.on_train_end raised OSError: because of on_train_end",
    ]
    assert diary.pages[-1] == ("train_end", 2) and trainer.step == 2
    assert not diary.of("exception")


def test_a_keyboard_interrupt_is_told_too():
    diary = Diary()
    with pytest.raises(KeyboardInterrupt):
        make().fit(data(), 9, [diary, Fails("on_train_batch_end", error=KeyboardInterrupt)])
    assert [page[0] for page in diary.pages] == ["train_begin", "train_batch_end", "exception", "train_end"]


def test_the_trainer_says_who_is_called_and_where_it_ends_while_it_trains():
    class Looks:
        def on_train_batch_end(self, trainer, metrics, step):
            seen.append((trainer.callbacks, trainer.end_step))

    seen, looks, trainer = [], Looks(), make()
    trainer.fit(data(), 1, [looks])
    trainer.fit([data()] * 2, callbacks=[looks])
    trainer.fit((data() for _ in range(1)), callbacks=[looks])
    assert seen == [((looks,), 1), ((looks,), 3), ((looks,), 3), ((looks,), None)]


def test_hooks_of_the_base_class_do_nothing_and_its_state_is_empty():
    plain, bare = make(), make()
    bare.fit(data(8), 4, batch_size=4, steps_per_call=1)
    plain.fit(data(8), 4, [Callback(), object()], batch_size=4, validation=data(4))
    np.testing.assert_array_equal(plain.model.kernel[...], bare.model.kernel[...])
    assert Callback().state_dict() == {} and isinstance(EarlyStopping("loss"), Callback)
