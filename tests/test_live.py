"""Live training: what a panel trains is what the trainer trains, and a hand may move anything at any moment."""

import dataclasses
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import traitlets
from flax import nnx
from live import (
    OBSERVATIONS,
    PAIRS,
    draw,
    make_dpo,
    make_grpo,
    make_ppo,
    make_reinforce,
    policy,
    score,
    wait_for,
    with_rate,
)

from artifex_rl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, sweep
from artifex_rl.envs import CartPole
from artifex_rl.lab import Environment, LiveTraining
from artifex_rl.lab.sliders import find_places, with_number
from artifex_rl.models import Denoiser
from artifex_rl.rl.flow_policy import FlowPolicy
from artifex_rl.rl.onpolicy import collect_trajectory
from artifex_rl.rl.trainer import SAMPLES

pytestmark = pytest.mark.slow  # every panel compiles a loop of its own


def assert_same(trainer, other):
    for a, b in zip(jax.tree.leaves(trainer.state), jax.tree.leaves(other.state), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_same_history(history, expected):
    assert set(history) >= set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(history[name], values, err_msg=name)


# A panel trains as `fit` does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_mapping_is_trained_on_as_fit_does(batch_size):
    """Over the ends of epochs, too: 48 rows are four batches of 10, and 8 rows that wait."""
    by_hand, trainer = make_dpo(), make_dpo()
    expected = by_hand.fit(PAIRS, steps=23, batch_size=batch_size)
    panel = LiveTraining(trainer, PAIRS, batch_size=batch_size)
    panel.run(9)
    panel.run(14)
    assert_same(trainer, by_hand)
    assert_same_history(panel.history, expected)
    assert panel.compilations == 1


def test_a_function_draws_its_batches_as_in_a_sweep():
    trainer = make_reinforce()
    expected = sweep(lambda seed: make_reinforce(), seeds=[0], data=draw, steps=12)
    panel = LiveTraining(trainer, draw)
    panel.run(12)
    for name, values in expected.metrics.items():
        np.testing.assert_allclose(panel.history[name], values[0], rtol=1e-4, atol=1e-6, err_msg=name)


def test_an_environment_is_acted_in_from_where_it_stood():
    place, by_hand, trainer = Environment(CartPole(), num_steps=16, num_envs=3), make_ppo(), make_ppo()
    panel = LiveTraining(trainer, place)
    panel.run(5)
    panel.run(2)

    base = jax.random.fold_in(by_hand.key, SAMPLES)
    envs = jax.vmap(CartPole().reset)(jax.random.split(jax.random.fold_in(base, SAMPLES), 3))
    collect = jax.jit(
        lambda state, key, envs: collect_trajectory(CartPole(), by_hand.merge(state)[0], key, 16, 3, envs)
    )
    for step in range(7):
        batch, envs = collect(by_hand.state, jax.random.fold_in(base, step), envs)
        metrics = by_hand.train_step(batch)
        assert panel.history["loss"][step] == pytest.approx(metrics["loss"], rel=1e-4)
    for a, b in zip(by_hand.state.variables, trainer.state.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_python_scores_the_samples_as_in_train_step():
    by_hand, trainer = make_grpo(), make_grpo()
    expected = by_hand.fit({"observations": OBSERVATIONS[:6]}, steps=5, reward_fn=score)
    panel = LiveTraining(trainer, {"observations": OBSERVATIONS[:6]}, reward_fn=score)
    panel.run(2)
    panel.run(3)
    assert_same(trainer, by_hand)
    assert_same_history(panel.history, expected)


def test_two_panels_of_one_start_agree_however_their_steps_were_cut():
    first, second = (LiveTraining(make_dpo(), PAIRS, batch_size=10) for _ in range(2))
    first.run(60)
    second._engine._length = 7
    for steps in (1, 2, 30, 27):
        second.run(steps)
    assert first._frame == second._frame
    states = [{k: v for k, v in p.get_state().items() if k != "layout"} for p in (first, second)]
    assert states[0] == states[1]
    assert first.fingerprint() == second.fingerprint() and first.png() == second.png()


# In the background -----------------------------------------------------------------------------------------------


def test_in_the_background_it_trains_the_same_and_a_pause_is_a_whole_number_of_steps():
    by_hand, trainer = make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS, batch_size=10)
    panel.start()
    assert panel.running
    panel.start()  # already does
    wait_for(lambda: panel.steps > 50)
    panel.pause()
    steps = panel.steps
    assert not panel.running and trainer.step == steps
    panel.start()
    wait_for(lambda: panel.steps > steps)
    panel.close()
    assert_same_history(panel.history, by_hand.fit(PAIRS, steps=panel.steps, batch_size=10))
    assert_same(trainer, by_hand)


def held_at_the_third_step(trainer):
    """A panel whose reward waits there, an event that says that it does, and one that lets it go on."""
    entered, release = threading.Event(), threading.Event()

    def slow(samples, conditions):
        if panel.steps == 2:
            entered.set()
            assert release.wait(120)
        return score(samples, conditions)

    panel = LiveTraining(trainer, {"observations": OBSERVATIONS[:6]}, reward_fn=slow)
    return panel, entered, release


def test_a_pause_does_not_wait_for_what_is_under_way():
    trainer, undisturbed = make_grpo(), make_grpo()
    panel, entered, release = held_at_the_third_step(trainer)
    panel.start()
    assert entered.wait(120)
    panel.pause()  # returns, though the reward does not
    assert not release.is_set() and not panel.running and panel.steps == trainer.step == 2
    thread = panel._engine._thread
    release.set()
    thread.join(120)
    assert panel.steps == trainer.step == 2  # what was under way was dropped
    panel.run(1)  # and is made again
    undisturbed.fit({"observations": OBSERVATIONS[:6]}, steps=3, reward_fn=score)
    assert_same(trainer, undisturbed)


def test_a_slow_speed_is_no_reason_to_wait_for_a_pause():
    panel = LiveTraining(make_dpo(), PAIRS)
    panel.speed = 0.001  # a step in a quarter of an hour
    panel.start()
    wait_for(lambda: panel.steps == 1)
    thread = panel._engine._thread
    panel.pause()
    thread.join(60)
    assert not thread.is_alive() and panel.steps == 1


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("live training")]


def test_nothing_trains_on_after_close_nor_beside_a_second_panel_of_the_trainer():
    trainer = make_dpo()
    first = LiveTraining(trainer, PAIRS)
    first.start()
    wait_for(lambda: first.steps)
    second = LiveTraining(trainer, PAIRS)
    assert first._engine.closed and not first.running and not threads()
    second.start()
    wait_for(lambda: second.steps)
    second.close()
    assert not threads()
    steps = trainer.step
    second.start()
    assert not second.running and trainer.step == steps
    with pytest.raises(RuntimeError, match="closed"):
        second.run(1)


def test_a_panel_that_could_not_be_made_is_in_nobodys_way(monkeypatch):
    def fail(*args):
        raise MemoryError("no room")

    trainer = make_dpo()
    with monkeypatch.context() as broken, pytest.raises(MemoryError, match="no room"):
        broken.setattr("artifex_rl.lab.live.Engine", fail)
        LiveTraining(trainer, PAIRS)
    panel = LiveTraining(trainer, PAIRS)
    panel.run(1)
    assert panel.steps == 1
    panel.close()


def test_a_cell_that_is_run_again_stops_what_it_started(monkeypatch):
    here = ["a cell", 1]
    monkeypatch.setattr("artifex_rl.lab.live._cell", lambda: tuple(here))
    first, beside = (LiveTraining(make_dpo(), PAIRS) for _ in range(2))
    here[:] = "another", 2
    elsewhere = LiveTraining(make_dpo(), PAIRS)
    here[:] = "a cell", 3
    again = LiveTraining(make_dpo(), PAIRS)
    assert [p._engine.closed for p in (first, beside, elsewhere, again)] == [True, True, False, False]


# A hand moves something ------------------------------------------------------------------------------------------


def test_a_move_counts_from_the_next_step_on_and_compiles_nothing():
    by_hand, trainer = make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS, batch_size=10)
    panel.run(8)
    by_hand.fit(PAIRS, steps=8, batch_size=10)
    for beta in (0.3, 0.07):
        panel.set(beta=beta)
        by_hand.config = dataclasses.replace(by_hand.config, beta=beta)
        assert trainer.config == by_hand.config
        panel.run(8)
        by_hand.fit(PAIRS, steps=8, batch_size=10)
    assert_same(trainer, by_hand)
    assert [(mark.step, mark.name, mark.value) for mark in panel.runs[0].marks] == [
        (8, "beta", 0.3),
        (16, "beta", 0.07),
    ]
    assert panel.compilations == 1 and panel._engine.chunks._loop._cache_size() == 1


def test_the_epochs_of_ppo_have_a_slider_of_whole_stops_and_compile_nothing():
    trainer = make_ppo()
    panel = LiveTraining(trainer, Environment(CartPole(), num_steps=8, num_envs=2), sliders=["num_epochs"])
    slider = panel._layout["sliders"][0]
    assert slider["label"] == "K  epochs" and slider["stops"] == [1, 2, 3, 4]
    panel.run(2)
    made = int(trainer.optimizer.step[...])
    panel.num_epochs = 3.0  # as a hand does: a slider knows floats alone
    panel.run(2)
    assert trainer.config.num_epochs == 3 and isinstance(trainer.config.num_epochs, int)
    assert int(trainer.optimizer.step[...]) == made + 2 * 3 * 2 and panel.compilations == 1
    with pytest.raises(ValueError, match=r"num_epochs: got 2\.5, needs an integer of at least 1"):
        panel.set(num_epochs=2.5)


def test_moves_while_it_trains_are_where_their_marks_say():
    """A run that is made again with the moves of its marks is the same to the bit, whatever was under way at each."""
    by_hand, trainer = make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS, batch_size=10)
    panel.start()
    for i in range(8):
        before = panel.steps
        wait_for(lambda before=before: panel.steps > before + 5)
        panel.set(beta=0.1 + 0.05 * i) if i % 2 else panel.set(learning_rate=0.001 * (i + 1))
    steps = panel.steps
    wait_for(lambda: panel.steps > steps + 5)
    panel.pause()
    marks, seen = panel.runs[0].marks, {}
    assert len(marks) == 8 and panel.compilations == 1
    for mark, end in zip(marks, [*(mark.step for mark in marks[1:]), panel.steps], strict=True):
        if not seen:
            seen = by_hand.fit(PAIRS, steps=mark.step, batch_size=10)
        if mark.name == "beta":
            by_hand.config = dataclasses.replace(by_hand.config, beta=mark.value)
        else:
            by_hand.state = with_number(by_hand.state, find_places(by_hand)["learning_rate"], mark.value)
        more = by_hand.fit(PAIRS, steps=end - mark.step, batch_size=10) if end > mark.step else {}
        seen = {name: np.concatenate([values, more.get(name, [])]) for name, values in seen.items()}
    assert_same_history(panel.history, seen)
    assert_same(trainer, by_hand)


def test_a_move_that_a_pause_overtakes_counts_all_the_same():
    """What the sliders show is what the trainer has when it rests."""
    trainer = make_grpo()
    panel, entered, release = held_at_the_third_step(trainer)
    panel.start()
    assert entered.wait(120)
    panel.set(beta=0.2)
    assert trainer.config.beta == 0.01 and panel.runs[0].marks == ()  # not yet: a chunk is under way
    panel.pause()
    release.set()
    assert trainer.config.beta == panel.setting["beta"] == 0.2
    assert [(mark.step, mark.name, mark.value) for mark in panel.runs[0].marks] == [(2, "beta", 0.2)]
    panel.run(1)
    assert len(panel.runs[0].marks) == 1 and panel.steps == 3


def test_the_next_chunk_is_sent_off_before_the_last_one_is_read(monkeypatch):
    """Else the processor waits for Python between any two. At a pause both are dropped, and no thread waits on."""
    panel = LiveTraining(make_dpo(), PAIRS)
    panel.run(40)  # by now it knows what a step takes
    order, engine = [], panel._engine
    advance, land = engine._advance, engine._land
    monkeypatch.setattr(engine, "_advance", lambda *plan: (order.append("send"), advance(*plan))[1])
    monkeypatch.setattr(engine, "_land", lambda *chunk: (order.append("land"), land(*chunk))[1])
    engine._length = 10
    panel.start()
    steps = panel.steps
    wait_for(lambda: panel.steps > steps + 100)
    panel.pause()
    engine.join()
    assert "".join(word[0] for word in order).startswith("sslslslsl")
    order.clear()
    panel.speed = 1000.0  # then each has its own time
    steps = panel.steps
    panel.start()
    wait_for(lambda: panel.steps > steps + 250)
    panel.pause()
    engine.join()
    assert "".join(word[0] for word in order).startswith("slslslsl")


@pytest.mark.parametrize("known", [True, False])
def test_python_that_comes_late_is_not_taken_for_slow_steps(known):
    """A `show` of a second, say. Else the next chunk would be sent off late, and be too short."""
    panel = LiveTraining(make_dpo(), PAIRS)
    panel.run(20)
    engine = panel._engine
    chunk = engine._advance(engine._version, 3, [engine.runs[0].point])
    jax.block_until_ready(chunk.tables)
    before = engine._step_seconds = engine._step_seconds if known else 0.0
    engine._landed = float("-inf")
    engine._land(engine._ticket, dataclasses.replace(chunk, sent=chunk.sent - 100))
    assert panel.steps == 23 and engine._step_seconds == before


def test_the_learning_rate_is_moved_where_the_optimizer_keeps_it():
    trainer, slow = make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS)
    assert panel.setting["learning_rate"] == 0.01
    panel.run(3)
    panel.set(learning_rate=0.0)
    before = jax.tree.leaves(nnx.state(trainer.model))
    panel.run(3)
    for a, b in zip(before, jax.tree.leaves(nnx.state(trainer.model)), strict=True):
        np.testing.assert_array_equal(a, b)
    panel.reset()
    panel.set(learning_rate=0.002)
    panel.run(4)
    slow = DPOTrainer(slow.model, with_rate(slow.model, 0.002), slow.config, reference_model=policy(1))
    slow.fit(PAIRS, steps=4)
    assert_same(trainer, slow)
    assert panel.compilations == 1
    assert panel.runs[0].marks == ()  # nothing had been trained: it is no move


def test_a_setting_of_the_model_is_moved_where_the_model_keeps_it():
    """The noise of a flow's steps: what is drawn from then on is drawn with it, as if it had been assigned."""

    def make():
        model = FlowPolicy(Denoiser((2, 2), (8,), rngs=nnx.Rngs(0)), 3, (2, 2))
        return GRPOTrainer(model, with_rate(model), GRPOConfig(num_generations=4))

    def draw(model, key):
        actions, log_probs = model.sample(jnp.zeros(8, int), key)
        rewards = model.outcome(actions).mean(axis=(1, 2))
        return {"observations": jnp.zeros(8, int), "actions": actions, "log_probs": log_probs, "rewards": rewards}

    trainer, twin = make(), make()
    panel, other = LiveTraining(trainer, draw), LiveTraining(twin, draw)
    assert panel.setting["noise_level"] == panel.noise_level == 0.7
    for refused in (0.0, -1.0, float("nan"), "much", True):
        for act in (panel.set, panel.fork):
            with pytest.raises(ValueError, match="noise_level: got"):
                act(noise_level=refused)
    with pytest.raises(traitlets.TraitError, match="needs a number of more than 0"):
        panel.noise_level = 0.0
    panel.run(2)
    panel.noise_level = 0.2
    panel.run(2)
    other.run(2)
    twin.model.noise_level = 0.2
    other.run(2)
    assert_same(trainer, twin)
    assert trainer.model.noise_level == panel.model().noise_level == pytest.approx(0.2)
    assert [(mark.step, mark.text) for mark in panel.runs[0].marks] == [(2, "a 0.2")]
    assert panel.history["entropy"][3] < panel.history["entropy"][0] - 1 and panel.compilations == 1
    assert panel.fork(noise_level=0.5).setting["noise_level"] == 0.5 and trainer.model.noise_level < 0.3
    panel.reset()
    assert trainer.model.noise_level == pytest.approx(0.7) and panel.noise_level == 0.7


def test_a_slider_in_the_page_is_a_move_too():
    panel = LiveTraining(make_dpo(), PAIRS)
    panel.run(2)
    panel.set_state({"beta": 0.25})  # as a message from the page
    panel.run(1)
    assert panel.setting["beta"] == panel.beta == 0.25 and panel.runs[0].marks[0].step == 2
    assert panel._frame["marks"] == [[pytest.approx(2 / 20), "β 0.25"]]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"beta": -1.0}, "DPOConfig.beta: got -1.0, needs a number of more than 0"),
        ({"beta": 0.3, "label_smoothing": 0.7}, "label_smoothing: got 0.7"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"learning_rate": -1e-3}, "learning_rate: got -0.001, needs a finite number of at least 0"),
        ({"gamma": 0.9}, "gamma: got 0.9, but the numbers to move are beta"),
        ({"loss_type": "ipo"}, "loss_type: got 'ipo', but"),
    ],
)
def test_what_a_config_refuses_changes_nothing(changes, named):
    trainer = make_dpo()
    panel = LiveTraining(trainer, PAIRS)
    before, frame = panel.setting, panel._frame
    for act in (panel.set, panel.fork):
        with pytest.raises(ValueError, match=re.escape(named)):
            act(**changes)
        assert panel.setting == before and len(panel.runs) == 1 and panel._frame == frame
        assert trainer.config == DPOConfig()
    with pytest.raises(traitlets.TraitError, match="needs a number"):
        panel.beta = -1.0
    assert panel.setting == before


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, None])
def test_steps_are_counted_in_whole_numbers(steps):
    with pytest.raises(ValueError, match="steps: got"):
        LiveTraining(make_dpo(), PAIRS).run(steps)


def test_reset_is_the_first_state_to_the_bit():
    trainer, place = make_ppo(), Environment(CartPole(), num_steps=16, num_envs=3)
    trainer.train_step({**collect_trajectory(CartPole(), trainer.model, jax.random.key(5), 16, 3)[0]})
    first, config = jax.tree.map(np.array, trainer.state), trainer.config
    panel = LiveTraining(trainer, place)
    panel.run(4)
    once = panel.history
    panel.set(clip_param=0.05, learning_rate=0.1)
    panel.run(3)
    panel.reset()
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(trainer.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert trainer.config == config and panel.steps == 0 and panel.history == {} and panel.runs[0].marks == ()
    assert panel.setting["clip_param"] == panel.clip_param == 0.2
    panel.run(4)
    assert_same_history(panel.history, once)
    panel.set(clip_param=0.05)
    panel.reset(keep_setting=True)
    assert panel.setting["clip_param"] == panel.clip_param == trainer.config.clip_param == 0.05 and panel.steps == 0


def test_a_fork_is_the_run_that_would_have_been():
    by_hand, other, trainer = make_dpo(), make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS, batch_size=10)
    panel.run(6)
    panel.fork(beta=0.5, learning_rate=0.03)
    assert panel.beta == 0.5  # the sliders are the fork's
    panel.run(7)
    expected = by_hand.fit(PAIRS, steps=13, batch_size=10)
    assert_same(trainer, by_hand)  # the run itself went on as it was
    assert_same_history(panel.history, expected)
    assert trainer.config == DPOConfig()

    other.fit(PAIRS, steps=6, batch_size=10)
    other.config = dataclasses.replace(other.config, beta=0.5)
    other.state = with_number(other.state, find_places(other)["learning_rate"], 0.03)
    after = other.fit(PAIRS, steps=7, batch_size=10)
    fork = panel.runs[1]
    for a, b in zip(jax.tree.leaves(fork.state), jax.tree.leaves(other.state), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, values in after.items():
        np.testing.assert_array_equal(fork.history.series()[name], np.concatenate([expected[name][:6], values]))
    assert len(panel._frame["legend"]) == 2 and "β 0.5, α 0.03, from step 6" in panel._frame["legend"][1]

    panel.fork()
    with pytest.raises(ValueError, match="fork: got 3 runs already"):
        panel.fork()
    panel.drop()
    panel.drop()
    panel.drop()
    assert len(panel.runs) == 1 and panel.beta == 0.1 and panel.compilations == 1


def test_a_fork_at_any_moment_goes_by_the_steps_of_the_run():
    panel = LiveTraining(make_dpo(), PAIRS, batch_size=10)
    panel.start()
    wait_for(lambda: panel.steps > 20)
    fork = panel.fork(beta=0.5)
    start = fork.history.start
    wait_for(lambda: panel.steps > start + 20)
    panel.drop()
    twin = panel.fork(beta=0.9)
    wait_for(lambda: panel.steps > twin.history.start + 20)
    panel.pause()
    assert twin.history.steps == panel.steps == int(twin.state.step) == int(panel.runs[0].state.step)
    by_hand = make_dpo()
    assert_same_history(panel.history, by_hand.fit(PAIRS, steps=panel.steps, batch_size=10))


def test_what_is_assigned_to_the_trainer_at_rest_counts():
    by_hand, trainer = make_dpo(), make_dpo()
    panel = LiveTraining(trainer, PAIRS)
    panel.run(2)
    by_hand.fit(PAIRS, steps=2)
    for each in (by_hand, trainer):
        each.train_step(PAIRS)
        each.config = dataclasses.replace(each.config, beta=0.4)
    panel.run(3)
    by_hand.fit(PAIRS, steps=3)
    assert_same(trainer, by_hand)
    assert panel.setting["beta"] == 0.4


# Something goes wrong --------------------------------------------------------------------------------------------


class Broke(Exception):
    pass


def test_an_error_ends_the_run_shows_in_the_panel_and_is_raised_by_the_next_call():
    trainer = make_grpo()

    def breaks(samples, conditions):
        if panel.steps == 3 and fail:
            raise Broke("the scorer is gone")
        return score(samples, conditions)

    fail = True
    panel = LiveTraining(trainer, {"observations": OBSERVATIONS[:6]}, reward_fn=breaks)
    panel.start()
    wait_for(lambda: not panel.running)
    assert panel.steps == trainer.step == 3
    assert panel._error.startswith("Broke: the scorer is gone") and panel._frame["running"] is False
    with pytest.raises(Broke, match="the scorer is gone"):
        panel.set(beta=0.2)
    assert panel.setting["beta"] == 0.01
    with pytest.raises(Broke):
        panel.run(1)  # it is still broken, and says so where it is called
    assert panel._error
    fail = False
    panel.run(2)
    assert panel._error == "" and panel.steps == 5


def test_a_loss_that_is_no_number_ends_the_run_after_the_last_good_step():
    class Diverges(DPOTrainer):
        def compute_loss(self, model, batch, key):
            loss, metrics = super().compute_loss(model, batch, key)
            return loss / jnp.where(metrics["reward_margin"] > self.config.gamma_beta_ratio, 0.0, 1.0), metrics

    def make():
        model = policy()
        return Diverges(model, with_rate(model), DPOConfig(beta=1.0), reference_model=policy(1))

    trainer, by_hand, steps = make(), make(), 0
    with pytest.raises(FloatingPointError):
        while True:
            by_hand.train_step(PAIRS)
            steps += 1
    assert steps > 2
    for length in (1, 64):
        panel = LiveTraining(trainer, PAIRS)
        panel._engine._length = length
        with pytest.raises(FloatingPointError, match=f"at step {steps}"):
            panel.run(200)
        assert panel.steps == trainer.step == steps and len(panel.history["loss"]) == steps
        assert_same(trainer, by_hand)
        assert "FloatingPointError" in panel._error
        panel.reset()


def test_the_run_ends_where_it_was_told_to():
    panel = LiveTraining(make_dpo(), PAIRS, max_steps=30)
    panel.start()
    wait_for(lambda: not panel.running)
    assert panel.steps == 30
    panel.run(5)
    assert panel.steps == 30
