"""DashboardExplorer: what it draws of the recorded runs, against the callbacks' own averages and stops."""

from types import SimpleNamespace

import numpy as np
import pytest

from artifex_rl.callbacks import KLStop
from artifex_rl.callbacks.plots import running_average
from artifex_rl.data.recorded_runs import METRICS, UPDATES, load_recorded_runs
from artifex_rl.lab import DashboardExplorer
from artifex_rl.lab.dashboard_explorer import PANELS, TARGETS, WINDOW, debiased_average, kl_stop

RECORDED = load_recorded_runs()


def moved(**knobs):
    explorer = DashboardExplorer()
    explorer.set(**knobs)
    return explorer.curves()


def stop_of_the_callback(kl, target, window=WINDOW):
    stop, trainer = KLStop(target, window), SimpleNamespace(should_stop=False, step=0)
    for step, value in enumerate(kl):
        stop.on_train_batch_end(trainer, {"approx_kl": float(value)}, step)
        if trainer.should_stop:
            return step
    return len(kl)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 0.95])
def test_the_average_is_that_of_the_history(keep):
    for values in RECORDED.values[:, METRICS.index("entropy")]:
        np.testing.assert_allclose(debiased_average(values, keep), running_average(values, keep), rtol=1e-4)


@pytest.mark.parametrize("window", [1, 10])
def test_the_stop_is_that_of_the_callback(window):
    for kl in RECORDED.values[:, METRICS.index("approx_kl")]:
        for target in TARGETS:
            assert kl_stop(kl, target, window) == stop_of_the_callback(kl, target, window)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(6))
def test_the_curves_are_those_that_were_recorded(run):
    curves, series = moved(run=run, smoothing=0.5, target="0.005"), RECORDED.series(run)
    np.testing.assert_allclose(curves["raw_entropy"], series["entropy"], atol=1e-5)
    np.testing.assert_allclose(
        curves["mean_episode_length"], running_average(series["episode_length"], 0.5), rtol=1e-4
    )
    best = series["episode_return"].max()
    np.testing.assert_allclose(curves["raw_episode_return"], series["episode_return"] / best, atol=1e-5)
    powers = np.clip(np.log10(np.maximum(series["grad_norm"], 1e-9)), *PANELS["grad_norm"][1])
    np.testing.assert_allclose(curves["raw_grad_norm"], powers, atol=1e-4)
    stop = stop_of_the_callback(series["approx_kl"], 0.005)
    for name, (_, bounds, _) in PANELS.items():
        line = curves[f"stop_{name}"]
        np.testing.assert_allclose(line[:, 1], bounds, atol=1e-5)
        assert np.isnan(line[:, 0]).all() if stop == UPDATES else (line[:, 0] == stop).all()
    np.testing.assert_allclose(curves["threshold"], np.log10(0.005), atol=1e-5)


def test_without_smoothing_the_thick_line_is_the_thin_one():
    curves = moved(smoothing=0)
    for name in PANELS:
        np.testing.assert_allclose(curves[f"mean_{name}"], curves[f"raw_{name}"], atol=1e-5)


def test_the_sentence_says_where_a_stop_would_have_been():
    explorer = DashboardExplorer()
    explorer.set(run="5", target="0.05")
    assert "would have stopped it after update 10" in explorer.summary()
    explorer.set(run="3")
    assert "would not have stopped it" in explorer.summary()


def test_the_six_runs_are_what_their_names_say():
    """Each by the dials that the notebook's prose goes by."""
    assert RECORDED.values.shape == (6, len(METRICS), UPDATES) and np.isfinite(RECORDED.values).all()
    runs = {name: RECORDED.series(name) for name in RECORDED.runs}
    ends = {name: {dial: values[-20:].mean() for dial, values in series.items()} for name, series in runs.items()}
    assert [name for name, end in ends.items() if end["episode_length"] > 400] == ["healthy"]
    hacked = runs["reward hacking"]
    assert hacked["episode_length"][-10:].mean() < 0.5 * hacked["episode_length"].max()
    assert hacked["episode_return"][-20:].mean() > 0.7 * hacked["episode_return"].max()
    assert np.corrcoef(hacked["episode_return"][40:], hacked["episode_length"][40:])[0, 1] < 0.99
    assert ends["sign flip"]["episode_length"] < runs["sign flip"]["episode_length"][0] / 2
    assert runs["learning rate"]["approx_kl"][0] > 1 and ends["learning rate"]["entropy"] < 0.05
    assert ends["entropy collapse"]["entropy"] < 0.05 < 0.3 < ends["healthy"]["entropy"]
    assert ends["value loss"]["grad_norm"] > 1e4 and ends["value loss"]["approx_kl"] < 1e-4


@pytest.mark.slow
def test_the_runs_can_be_recorded_again():
    from artifex_rl.data.make_recorded_runs import RUNS, record

    again = record()
    assert tuple(again["runs"]) == RECORDED.runs == tuple(RUNS) and tuple(again["metrics"]) == METRICS
    first = again["values"][:, :, 0]  # later ones drift apart where a processor rounds otherwise
    np.testing.assert_allclose(first, RECORDED.values[:, :, 0], rtol=0.02, atol=1e-3)
