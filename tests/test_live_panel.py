"""What a live panel shows and takes: its figure, its sliders, its texts, what is stored, and what it refuses."""

import json
import re
import time

import numpy as np
import optax
import pytest
from flax import nnx
from live import OBSERVATIONS, PAIRS, draw, make_dpo, make_grpo, make_reinforce, policy, score, wait_for, with_rate
from matplotlib.figure import Figure
from matplotlib.text import Text

from artifex_rl import DPOConfig, DPOTrainer, REINFORCETrainer
from artifex_rl.envs import CartPole
from artifex_rl.lab import Control, Environment, LiveTraining, Slider
from artifex_rl.lab.history import BUCKETS
from artifex_rl.lab.live_figure import LiveFigure
from artifex_rl.lab.live_page import ANOTHER, IN_FLIGHT
from artifex_rl.models import ActorCritic
from artifex_rl.samples import as_sample


@pytest.fixture(scope="module")
def trained():
    panel = LiveTraining(make_dpo(), PAIRS, batch_size=10, curves={"loss": "loss", "both": ["chosen_reward", "loss"]})
    panel.run(30)
    panel.set(beta=0.3)
    panel.run(10)
    panel.fork(beta=0.05)
    panel.run(20)
    return panel


def test_a_picture_before_the_first_step_has_no_legend_to_warn_of(recwarn):
    panel = LiveTraining(make_dpo(), PAIRS, batch_size=10, curves={"both": ["chosen_reward", "loss"]})
    assert panel.png().startswith(b"\x89PNG")
    assert not [str(warning.message) for warning in recwarn if "legend" in str(warning.message)]


@pytest.mark.parametrize("title", ["Both", "Reward of the chosen, of the rejected"])
def test_a_heading_and_the_names_of_its_curves_do_not_cover_each_other(title):
    groups = {title: ("chosen_reward", "rejected_reward"), "Margin": ("margin",), "Loss": ("loss",)}
    ax = LiveFigure(groups)._canvas.figure.axes[0]
    heading = next(text for text in ax.get_children() if isinstance(text, Text) and text.get_text() == title)
    assert not heading.get_window_extent().overlaps(ax.get_legend().get_window_extent())


def drawn(panel, axes, metric, run, kind):
    """Data heights of a line of the frame that the page has: integers, by way of the ticks' texts."""
    layout, frame = panel._layout, panel._frame
    row = frame["lines"].index(layout["lines"].index(f"line-{axes}-{metric}-{run}-{kind}"))
    table = np.frombuffer(frame["data"], "<i2").reshape(-1, frame["count"])
    _, top, _, bottom = layout["axes"][axes]["box"]
    low, high = (float(frame["y"][axes][i].replace("−", "-")) for i in (0, -1))
    heights = np.where(table[row] == -32768, np.nan, (bottom - table[row] / layout["unit"]) / (bottom - top))
    return low + heights * (high - low), (high - low) / (bottom - top)


def test_what_is_drawn_is_what_was_measured(trained):
    """In the fork's curve there is a gap where it was not born yet."""
    assert trained._frame["pitch"] == 1 / 80 and trained._frame["count"] == 60
    for axes, metric, name in [(0, 0, "loss"), (1, 0, "chosen_reward"), (1, 1, "loss")]:
        heights, point = drawn(trained, axes, metric, 0, "raw")
        inside = np.isfinite(heights) & (heights > 0)
        expected = trained.history[name]
        shown = np.clip(expected, *np.nanquantile(heights, [0, 1]))
        assert np.abs(heights - shown)[inside].max() < point  # a spike may be cut off by the axes
        smooth, _ = drawn(trained, axes, metric, 0, "smooth")
        weights = 0.85 ** np.arange(60)[::-1]
        assert smooth[-1] == pytest.approx((weights * expected).sum() / weights.sum(), abs=point)
    fork, _ = drawn(trained, 0, 0, 1, "smooth")
    assert np.isnan(fork[:40]).all() and np.isfinite(fork[40:]).all()


def test_moves_are_marked_where_they_were_made(trained):
    places = [(round(80 * x), text) for x, text in trained._frame["marks"]]
    assert places == [(30, "β 0.3"), (40, "what if")]
    assert trained._frame["legend"] == ["β 0.3", "β 0.05, from step 40"]
    assert "Moved: β 0.3 from step 30." in trained.summary() and "What if: β 0.05, from step 40." in trained.summary()


def test_a_drag_is_one_line_and_labels_do_not_cover_each_other():
    panel = LiveTraining(make_dpo(), PAIRS)
    panel.run(100)
    for i in range(20):
        panel.set(beta=0.2 + i / 100)
        panel.run(1)
    panel.run(40)
    panel.set(learning_rate=0.02)
    panel.run(1)
    assert len(panel.runs[0].marks) == 21
    marks = panel._frame["marks"]
    assert len(marks) < 12 and [text for _, text in marks if text][-1] == "α 0.02"
    labelled = [x for x, text in marks if text]
    assert min(np.diff(labelled)) > 0.07


def test_the_words_for_an_untrusted_notebook_hold_nothing_that_another_machine_computes_otherwise(trained):
    bundle, _ = trained._repr_mimebundle_()
    assert bundle["text/plain"] == (
        "DPOTrainer after 60 steps. Moved: β 0.3 from step 30. What if: β 0.05, from step 40."
    )
    assert bundle["image/png"] and "application/vnd.jupyter.widget-view+json" in bundle
    assert re.search(r"loss [\d.]+ \(at first [\d.]+\)", trained.summary())
    assert trained._frame["text"] == trained.summary()


def test_what_a_notebook_stores_is_small():
    panel = LiveTraining(make_grpo(), {"observations": OBSERVATIONS[:6]}, reward_fn=score)
    panel.run(2)
    panel.fork()
    panel._engine.fork({})
    panel.run(1)
    state = json.dumps(panel.get_state(), default=lambda data: "x" * (4 * len(data) // 3))
    most = 2 * 3 * 6 * BUCKETS * 2 * 4 // 3  # bytes that a full frame has
    assert len(state) + most < 150_000


def test_a_page_without_a_kernel_gets_the_picture_and_its_words(trained, monkeypatch):
    monkeypatch.setenv("ARTIFEX_RL_EMBED", "html")
    bundle, _ = trained._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    page = bundle["text/html"]
    assert trained.summary() in page and "Needs a running kernel" in page and len(page) < 150_000


# What it is made of ----------------------------------------------------------------------------------------------


def test_every_number_of_the_config_has_a_slider_that_starts_where_it_is():
    panel = LiveTraining(make_dpo(beta=0.137), PAIRS)
    names = [slider["name"] for slider in panel._layout["sliders"]]
    assert names == ["beta", "label_smoothing", "gamma_beta_ratio", "learning_rate"]
    for slider in panel._layout["sliders"]:
        stops = slider["stops"]
        assert stops == sorted(stops) and getattr(panel, slider["name"]) in stops and len(stops) > 10
        for stop in (stops[0], stops[-1]):
            panel.set(**{slider["name"]: stop})  # every stop is allowed


def test_sliders_and_curves_are_chosen_by_the_notebook():
    label = Control("label_smoothing", 0, 0.4, 0.1, 0.0)
    chosen = ["beta", Slider("learning_rate", (1e-4, 1e-3, 1e-2), "α"), label]
    panel = LiveTraining(make_dpo(), PAIRS, sliders=chosen, curves=["loss", "reward_margin"])
    assert [slider["stops"] for slider in panel._layout["sliders"][1:]] == [
        [1e-4, 1e-3, 1e-2],
        [0, 0.1, 0.2, 0.3, 0.4],
    ]
    assert [axes["metrics"] for axes in panel._layout["axes"]] == [["loss"], ["reward_margin"]]
    panel.set(gamma_beta_ratio=0.7)  # a number without a slider is moved by code
    assert panel.setting["gamma_beta_ratio"] == 0.7


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"sliders": ["gamma"]}, ValueError, "sliders: got 'gamma', needs some of beta"),
        ({"sliders": ["loss_type"]}, ValueError, "part of the compiled code"),
        ({"sliders": ["beta", "beta"]}, ValueError, "needs different names"),
        ({"sliders": [3]}, ValueError, "needs names, Sliders or Controls"),
        ({"sliders": [Slider("beta", (-1.0, 1.0))]}, ValueError, "beta: got -1.0"),
        ({"curves": ["no_such"]}, ValueError, "curves: got no_such, needs some of chosen_reward, dpo_loss"),
        ({"curves": {}}, ValueError, "one to nine titles"),
        ({"curves": "loss"}, ValueError, "curves: got 'loss'"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0"),
        ({"batch_size": 49}, ValueError, "needs at most the 48 rows"),
        ({"max_steps": 0}, ValueError, "max_steps: got 0"),
        ({"show_every": 1.5}, ValueError, "show_every: got 1.5"),
        ({"data": 3}, TypeError, "data: got int, needs a mapping"),
        ({"data": []}, ValueError, "data: got no batch"),
        ({"data": {"observations": OBSERVATIONS}}, ValueError, "chosen"),
        ({"data": draw, "reward_fn": score}, ValueError, "reward_fn: got one beside function"),
        ({"data": draw, "batch_size": 4}, ValueError, "batch_size: got 4, needs None"),
        ({"trainer": policy()}, TypeError, "trainer: got MLP"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, said):
    arguments = {"trainer": make_dpo(), "data": PAIRS} | arguments
    with pytest.raises(error, match=re.escape(said)):
        LiveTraining(arguments.pop("trainer"), arguments.pop("data"), **arguments)


@pytest.mark.slow
def test_a_learning_rate_that_is_no_state_has_no_slider():
    for rate in (
        optax.adam(1e-2),
        optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(1, 0, 9)),
    ):
        model = policy()
        trainer = DPOTrainer(model, nnx.Optimizer(model, rate, wrt=nnx.Param), DPOConfig(), reference_model=policy(1))
        assert "learning_rate" not in LiveTraining(trainer, PAIRS).setting
        with pytest.raises(ValueError, match=re.escape("optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)")):
            LiveTraining(trainer, PAIRS, sliders=["learning_rate"])


@pytest.mark.parametrize("number", [0, -2, 1.5, True])
def test_an_environment_counts_in_whole_numbers(number):
    for name in ("num_steps", "num_envs"):
        with pytest.raises(ValueError, match=f"{name}: got"):
            Environment(CartPole(), **{name: number})


@pytest.mark.slow
def test_returns_of_episodes_are_counted_across_trajectories():
    """Rewards are 1 a step: episodes that ended, and what runs on, make up all steps taken."""
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(0))
    trainer = REINFORCETrainer(model, with_rate(model))
    panel = LiveTraining(trainer, Environment(CartPole(max_steps=13), num_steps=10, num_envs=2))
    panel.run(8)
    returns = panel.history["episode_return"]
    assert np.isnan(returns[0]) or returns[0] <= 10
    assert np.nanmax(returns) <= 13 and np.nanmax(returns) > 10  # longer than a trajectory


# Between kernel and page -----------------------------------------------------------------------------------------


def press(panel, what, **more):
    panel._handle_custom_msg({"do": what, **more}, [])


def test_the_buttons_do_what_the_methods_do():
    panel = LiveTraining(make_dpo(), PAIRS)
    press(panel, "step")
    wait_for(lambda: panel.steps == 1 and not panel.running)
    press(panel, "start")
    wait_for(lambda: panel.steps > 5)
    assert panel._frame["running"]
    press(panel, "fork")
    panel.set_state({"beta": 0.4})
    assert len(panel.runs) == 2 and panel.runs[0].wanted["beta"] == 0.1
    press(panel, "drop")
    assert panel.beta == 0.1
    press(panel, "pause")
    assert not panel.running and not panel._frame["running"] and panel._frame["step"] == panel.steps
    panel.set_state({"beta": 0.4})
    press(panel, "restart")
    assert panel.steps == 0 and panel.beta == 0.4
    press(panel, "reset")
    assert panel.beta == 0.1
    for _ in range(3):
        press(panel, "fork")
    assert "fork: got 3 runs already" in panel._error
    panel.close()


def test_a_page_that_does_not_answer_is_not_sent_a_queue(monkeypatch):
    panel, sent = LiveTraining(make_dpo(), PAIRS), []
    panel.observe(lambda change: sent.append(change["new"]["serial"]), "_frame")
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def turns(seconds, answers):
        sent.clear()
        for _ in range(round(seconds * 200)):
            clock[0] += 1 / 200
            panel._engine.runs[0].history.add(("loss",), np.ones((1, 1)))
            panel._redraw(False)
            if answers and sent:
                press(panel, "drawn", serial=sent[-1])
        return len(sent)

    assert 20 <= turns(1, answers=True) <= 30
    in_vain = turns(1, answers=False)  # within which it is asked
    silent = turns(1, answers=False)  # those on their way, and one each half second
    assert silent <= IN_FLIGHT + 2 and in_vain + silent <= 30 + IN_FLIGHT + 2
    assert turns(2, answers=False) <= 4
    press(panel, "drawn", serial=sent[-1])
    press(panel, "drawn", serial=0)  # of a page that was opened again: what was drawn stays drawn
    assert 20 <= turns(1, answers=True) <= 30


@pytest.mark.parametrize(
    ("late", "frames", "answers"), [(1, 110, (5, 6)), (5, 110, (5, 12)), (11, 80, (5, 30)), (40, 20, (2, 30))]
)
def test_a_page_that_is_quick_is_seldom_asked_and_one_that_is_far_away_gets_what_it_can_take(
    monkeypatch, late, frames, answers
):
    """Answers arrive so many frames late. Seldom: an answer costs more than a frame."""
    panel, sent, clock, on_their_way, answered = LiveTraining(make_dpo(), PAIRS), [], [100.0], [], []
    panel.observe(lambda change: sent.append(change["new"]), "_frame")
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for turn in range(round(5 / 0.042)):
        clock[0] += 0.042
        seen = len(sent)
        panel._redraw(False)
        if len(sent) > seen and sent[-1]["ask"] > max(answered, default=0):
            answered.append(sent[-1]["serial"])
            on_their_way.append((turn + late, sent[-1]["serial"]))
        for serial in [serial for due, serial in on_their_way if due == turn]:
            press(panel, "drawn", serial=serial)
    assert len(sent) >= frames and answers[0] <= len(answered) <= answers[1]


@pytest.mark.parametrize("chunk", [0.018, 0.028, 0.03, 0.034, 0.046])
def test_frames_leave_at_their_pace_whenever_chunks_begin(monkeypatch, chunk):
    """A frame can leave with a chunk alone. One that is due a moment after a chunk began must not wait for a whole
    one more: at 0.03 s a chunk every second frame would be lost."""
    panel, sent, clock = LiveTraining(make_dpo(), PAIRS), [], [100.0]
    panel.observe(lambda change: sent.append(change["new"]["serial"]), "_frame")
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for _ in range(round(4 / chunk)):
        clock[0] += chunk
        panel._redraw(False)
        press(panel, "drawn", serial=sent[-1] if sent else 0)
    assert 20 <= len(sent) / 4 <= 30


def test_a_second_question_is_asked_before_the_kernel_waits():
    """One answer may be lost."""
    assert 2 * ANOTHER <= IN_FLIGHT


@pytest.mark.slow
def test_what_show_returns_is_shown_of_the_model_of_now():
    seen = []

    def show(model, key):
        seen.append(np.asarray(model(OBSERVATIONS[:1]))[0, 0])
        return [f"logit {seen[-1]:.3f}", "and a line"]

    trainer = make_reinforce()
    panel = LiveTraining(trainer, draw, show=show)
    panel.run(10)
    now = np.asarray(trainer.model(OBSERVATIONS[:1]))[0, 0]
    assert panel._sample == {"text": f"logit {now:.3f}\nand a line", "alt": "", "step": 10}
    panel.reset()
    assert panel._sample == {}


def test_samples_may_be_texts_images_or_figures():
    assert as_sample(("a", "what it is")) == {"text": "a", "alt": "what it is"}
    for shape in [(8, 8), (8, 8, 3), (5, 8, 8), (5, 8, 8, 3)]:
        sample = as_sample(np.random.default_rng(0).uniform(size=shape))
        assert sample["png"].startswith(b"\x89PNG") and sample["alt"]
        assert sample == as_sample(np.random.default_rng(0).uniform(size=shape))
    assert as_sample((Figure(), "empty"))["alt"] == "empty"
    for wrong in (None, [1, "a"], np.zeros(3), {"a": 1}):
        with pytest.raises(ValueError, match="show: returned"):
            as_sample(wrong)
