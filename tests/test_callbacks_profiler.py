"""JAXProfiler: a trace that holds the steps that were asked for, however the run began and however it ends."""

import collections
import gzip
import json
import resource

import jax
import pytest
from small_runs import by_hand, data, make

from artifex_rl.callbacks import Callback, JAXProfiler, ProfilingConfig


class Marks(Callback):
    """Writes a mark of its own into the trace, so that one can see which steps are in it."""

    def on_train_batch_end(self, trainer, metrics, step):
        with jax.profiler.TraceAnnotation(f"after_step_{step}"):
            pass


def steps_in(trace):
    """The steps whose marks are in a Perfetto trace, as a viewer would read it."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return sorted(int(event["name"][11:]) for event in events if event.get("name", "").startswith("after_step_"))


def profiler(tmp_path, start, end):
    return JAXProfiler(ProfilingConfig(log_dir=tmp_path / "profile", start_step=start, end_step=end))


def test_the_trace_holds_the_steps_and_the_message_says_how_to_open_it(tmp_path, capsys):
    callback = profiler(tmp_path, 3, 6)
    make().fit(data(), 9, [Marks(), callback])
    assert steps_in(callback.trace) == [3, 4, 5]
    assert callback.trace.name == "perfetto_trace.json.gz" and list(callback.trace.parent.glob("*.xplane.pb"))
    printed = capsys.readouterr().out
    assert printed.strip() == callback.how_to_open
    assert (
        printed.startswith("Profile of steps 3 to 5: open https://ui.perfetto.dev") and str(callback.trace) in printed
    )


def test_compiled_computation_is_in_it(tmp_path):
    callback = profiler(tmp_path, 2, 4)
    make().fit(data(), 5, [callback])
    events = json.loads(gzip.decompress(callback.trace.read_bytes()))["traceEvents"]
    operations = collections.Counter(
        event["name"] for event in events if event.get("args", {}).get("hlo_module") == "jit__step"
    )
    assert operations and {*operations.values()} == {2}


@pytest.mark.parametrize(("stands", "expected"), [(4, [5, 6, 7]), (50, [51, 52, 53])])
def test_a_run_that_goes_on_beyond_the_beginning_profiles_as_many_steps(tmp_path, stands, expected):
    trainer, callback = make(), profiler(tmp_path, 3, 6)
    trainer.fit(data(), stands)
    trainer.fit(data(), 20, [Marks(), callback])
    assert steps_in(callback.trace) == expected
    again = profiler(tmp_path, 3, 6)
    again.load_state_dict(json.loads(json.dumps(callback.state_dict())))
    trainer.fit(data(), 20, [again])
    assert again.trace is None  # there is one already


def test_the_first_steps_and_loops_by_hand(tmp_path):
    callback = profiler(tmp_path, 0, 2)
    by_hand(make(), 4, [Marks(), callback])
    assert steps_in(callback.trace) == [0, 1]
    trainer, callback = make(), profiler(tmp_path, 1, 3)
    trainer.fit(data(), 7)
    by_hand(trainer, 5, [Marks(), callback])  # which counts from 0
    assert steps_in(callback.trace) == [1, 2]


def test_steps_of_one_call_are_profiled_whole(tmp_path):
    callback = profiler(tmp_path, 3, 5)
    make().fit(data(), 12, [Marks(), callback], steps_per_call=4)
    assert steps_in(callback.trace) == [4, 5, 6, 7]  # the first call that begins at step 3 or later


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_end_of_training_ends_the_trace(tmp_path, error):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 3 and error:
                raise error

    callback = profiler(tmp_path, 2, 90)
    try:
        make().fit(data(), 5 if error else 4, [Marks(), callback, Fails()])
    except KeyboardInterrupt:
        assert error
    assert steps_in(callback.trace) == [2, 3]
    jax.profiler.start_trace(str(tmp_path))  # nothing is left running
    jax.profiler.stop_trace()


def test_two_profiles_at_a_time_are_one_and_a_warning(tmp_path):
    first, second, third = (profiler(tmp_path / str(start), start, end) for start, end in ((1, 4), (2, 4), (5, 6)))
    with pytest.warns(UserWarning, match=r"JAXProfiler: steps from 2 on are not profiled: .*one profile") as caught:
        make().fit(data(), 8, [Marks(), first, second, third])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert steps_in(first.trace) == [1, 2, 3] and second.trace is None and steps_in(third.trace) == [5]


def test_a_full_disk_costs_the_profile_and_nothing_else(tmp_path):
    callback, trainer = profiler(tmp_path, 1, 3), make()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="cannot write the profile of steps 1 to 2"):
            trainer.fit(data(), 5, [callback])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.step == 5 and callback.trace is None
    again = profiler(tmp_path / "again", 1, 3)
    make().fit(data(), 5, [Marks(), again])
    assert steps_in(again.trace) == [1, 2]


def test_the_device_is_waited_for_before_the_trace_begins_and_ends(tmp_path, monkeypatch):
    calls = []
    for module, name in ((jax, "block_until_ready"), (jax.profiler, "start_trace"), (jax.profiler, "stop_trace")):
        monkeypatch.setattr(module, name, lambda *arguments, name=name, **more: calls.append((name, arguments)))
    trainer = make()
    with pytest.warns(UserWarning, match="cannot write the profile"):  # for there is none
        trainer.fit(data(), 5, [profiler(tmp_path, 1, 3)])
    assert [name for name, _ in calls] == ["block_until_ready", "start_trace", "block_until_ready", "stop_trace"]
    assert len(calls[2][1][0]) == len(trainer.state.variables)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="end_step: got 5, needs more than start_step=5"):
        ProfilingConfig(start_step=5, end_step=5)
    with pytest.raises(ValueError, match="start_step: got -1"):
        ProfilingConfig(start_step=-1)
