"""Rendering: what the dashboard shows, as text and as a picture, and how the environment hands it out."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

import preserve_gym
from preserve_gym import ClusterConfig, InputError, Trace, Workload, WorkloadConfig
from preserve_gym.envs.dashboard import RENDER_MODES, Dashboard
from preserve_gym.envs.scene import compact, duration, per_cent
from preserve_gym.sim import TOTALS, Snapshot

SHAPE = (540, 960, 3)


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Ten minutes of traffic; shared, as it is never changed."""
    return Workload(WorkloadConfig(start_s=3600.0, horizon_s=600.0, rate_scale=0.5))


@pytest.fixture(scope="module")
def quiet() -> Workload:
    """An hour without requests but for its first and last second."""
    trace = Trace(arrival_s=[0.0, 1.0, 3600.0], prompt_tokens=[9, 9, 9], output_tokens=[9, 9, 9])
    return Workload(WorkloadConfig(start_s=900.0, horizon_s=1200.0), trace=trace)


def make(workload: Workload, mode: str | None = "rgb_array", **options: Any) -> gym.Env[Any, Any]:
    return gym.make("preserve/Autoscale-v0", workload=workload, render_mode=mode, **options)


def play(workload: Workload, steps: int, action: int = 2, **options: Any) -> Any:
    """Reset and take some steps: the bare environment."""
    env = make(workload, **options)
    env.reset(seed=0)
    for _ in range(steps):
        env.step(action)
    return env.unwrapped


def snapshot(slots: int, time_s: float = 3600.0, **values: Any) -> Snapshot:
    """A cluster whose slots are off, starting, ready, draining, off and so on, or as ``values`` say."""
    state = (np.arange(slots) % 4).astype(np.int8)
    serving = state >= 2
    made = Snapshot(
        time_s=time_s,
        state=state,
        ready_in_s=np.where(state == 1, 42.0, 0.0),
        running=np.where(serving, 7, 0),
        waiting=np.where(serving, 3, 0),
        queued_prefill_tokens=np.zeros(slots, np.int64),
        expected_tokens=np.zeros(slots, np.int64),
        kv_use=np.where(serving, 0.5, 0.0),
        anticipated_peak=np.where(serving, 0.6, 0.0),
        anticipated_overload=np.zeros(slots),
        target=int(np.count_nonzero((state == 1) | (state == 2))),
        totals=dict.fromkeys(TOTALS, 0.0),
    )
    return replace(made, **values)


def dashboard(workload: Workload, slots: int, **values: Any) -> Dashboard:
    cluster = ClusterConfig(max_instances=slots)
    board = Dashboard(cluster, workload, workload.profile(cluster))
    board.start(snapshot(slots, **values))
    return board


def change(**values: float) -> dict[str, float]:
    return dict.fromkeys(TOTALS, 0.0) | values


def assert_picture(picture: NDArray[np.uint8]) -> None:
    assert picture.shape == SHAPE
    assert picture.dtype == np.uint8
    # Not blank, and nothing runs over the edges.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert (picture[100:, :10] == 255).all()
    assert (picture[100:, -10:] == 255).all()
    assert (picture[-4:] == 255).all()


def assert_text(text: str) -> None:
    lines = text.split("\n")
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines), text
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_checkers_accept_every_mode(workload: Workload, mode: str) -> None:
    check_env(make(workload, mode).unwrapped)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(make(workload, mode).unwrapped)


def test_modes_are_declared(workload: Workload) -> None:
    assert make(workload).metadata["render_modes"] == ["ansi", "rgb_array"]
    for mode in ("human", "text", "", 3):
        with pytest.raises(InputError, match="render_mode: expected None or one of ansi, rgb_array, got"):
            preserve_gym.envs.autoscale.AutoscaleEnv(workload=workload, render_mode=mode)


def test_nothing_is_rendered_or_remembered_without_a_mode(workload: Workload) -> None:
    env = play(workload, 1, mode=None)
    assert env.render() is None
    assert env.dashboard is None


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_rendering_needs_a_reset_but_no_step(workload: Workload, mode: str) -> None:
    env = make(workload, mode).unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    shown: Any = env.render()
    assert_picture(shown) if mode == "rgb_array" else assert_text(shown)


def test_a_frame_is_a_fresh_array(workload: Workload) -> None:
    env = play(workload, 3)
    one, other = env.render(), env.render()
    assert_picture(one)
    np.testing.assert_array_equal(one, other)
    assert not np.shares_memory(one, other)
    one[:] = 0
    np.testing.assert_array_equal(env.render(), other)


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_equal_episodes_look_equal(workload: Workload, mode: str) -> None:
    first = play(workload, 20, mode=mode)
    again = play(workload, 20, mode=mode)
    np.testing.assert_array_equal(first.render(), again.render())
    # A second episode shows nothing of the first.
    first.reset(seed=0)
    again = play(workload, 0, mode=mode)
    np.testing.assert_array_equal(first.render(), again.render())


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_rendering_changes_nothing(workload: Workload, mode: str) -> None:
    watched, alone = play(workload, 5, mode=mode), play(workload, 5, mode=None)
    for _ in range(5):
        watched.render()
        one, other = watched.step(3), alone.step(3)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_steps_and_actions_change_what_is_shown(workload: Workload, mode: str) -> None:
    env = play(workload, 5, mode=mode)
    before = env.render()
    env.step(2)
    assert not np.array_equal(before, env.render())
    assert not np.array_equal(
        play(workload, 6, action=4, mode=mode).render(), play(workload, 6, mode=mode).render()
    )


def test_a_dashboard_survives_pickling(workload: Workload) -> None:
    env = play(workload, 3)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(copy.render(), env.render())


def test_gymnasium_collects_frames(workload: Workload) -> None:
    env = make(workload, "rgb_array_list")
    env.reset(seed=0)
    env.step(2)
    frames: Any = env.render()
    assert [frame.shape for frame in frames] == [SHAPE, SHAPE]


@pytest.mark.parametrize("slots", [1, 2, 4, 16, 17, 32, 33, 63, 64, 65, 1000])
def test_any_number_of_slots_fits(workload: Workload, slots: int) -> None:
    board = dashboard(workload, slots)
    assert_picture(board.rgb_array())
    text = board.ansi()
    assert_text(text)
    assert f"{slots // 4 + (slots % 4 > 2)} ready" in text
    if slots > 64:
        assert f"64 of {compact(slots)} slots" in text


def test_columns_of_the_text_are_aligned(workload: Workload) -> None:
    lines = dashboard(workload, 64, running=np.full(64, 12_345)).ansi().split("\n")[-16:]
    for row, line in enumerate(lines):
        padded = f"{line:<80}"
        assert [padded[k : k + 3].strip() for k in (0, 20, 40, 60)] == [str(row + 16 * k) for k in range(4)]
    rows = dashboard(workload, 16).ansi().split("\n")[-16:]
    assert {len(row) for row in rows if "[" in row} == {len("slot  state    KV cache in use") + 45}


def test_states_look_different(workload: Workload) -> None:
    off, starting, ready, draining = (
        dashboard(workload, 1, state=np.array([state], np.int8), kv_use=np.array([0.5])) for state in range(4)
    )
    boards = (off, starting, ready, draining)
    rows = {board.rgb_array()[150:190, 16:440].tobytes() for board in boards}
    assert len(rows) == 4
    for board, word in zip(boards, ("off", "starting", "ready", "draining"), strict=True):
        assert board.ansi().split("\n")[-1].split()[1] == word


@pytest.mark.parametrize(
    "values",
    [
        {"kv_use": np.array([0.0, 0.0, 0.9, 0.5])},
        {"running": np.array([0, 0, 8, 7])},
        {"waiting": np.array([0, 0, 4, 3])},
        {"ready_in_s": np.array([0.0, 41.0, 0.0, 0.0])},
        {"target": 3},
    ],
)
def test_every_quantity_is_shown(workload: Workload, values: dict[str, Any]) -> None:
    plain, other = dashboard(workload, 4), dashboard(workload, 4, **values)
    assert plain.ansi() != other.ansi()
    assert not np.array_equal(plain.rgb_array(), other.rgb_array())


def test_the_chosen_slot_is_marked(workload: Workload) -> None:
    for slots in (4, 64):
        board = dashboard(workload, slots)
        pictures, texts = [], []
        for chosen in (None, 2, 3):
            board.record(snapshot(slots), change(), chosen)
            pictures.append(board.rgb_array().tobytes())
            texts.append(board.ansi())
        assert len(set(pictures)) == len(set(texts)) == 3
        assert ">" not in texts[0]
        assert ">  2" in texts[1] or "> 2#" in texts[1]


def test_short_steps_are_taken_together(workload: Workload) -> None:
    """As where a step is one request."""
    board = dashboard(workload, 4)
    for k in range(1, 20_001):
        board.record(snapshot(4, 3600.0 + 0.01 * k), change(compliant=1.0, instance_s=0.01))
    scene = board.scene()
    assert 19 <= len(scene.segments) <= 20
    assert scene.segments[0].start_s == 3600.0
    assert scene.segments[-1].end_s == 3800.0
    assert sum(segment.compliant for segment in scene.segments) == 20_000
    assert scene.gpu_hours == pytest.approx(200.0 / 3600.0)


def test_the_past_is_forgotten_in_time(workload: Workload) -> None:
    board = dashboard(workload, 4)
    for k in range(1, 1001):
        board.record(snapshot(4, 3600.0 + 10.0 * k), change())
    scene = board.scene()
    assert scene.history_s == 600.0
    assert len(scene.segments) == 62
    assert_picture(board.rgb_array())


def test_attainment_is_that_of_the_decided_requests(workload: Workload) -> None:
    board = dashboard(workload, 4)
    assert board.scene().attainment is board.scene().recent_attainment is None
    board.record(snapshot(4, 3610.0), change(compliant=6.0, violations=2.0))
    board.record(snapshot(4, 3700.0), change(compliant=1.0, violations=1.0))
    scene = board.scene()
    assert scene.attainment == 0.7
    assert scene.recent_attainment == 0.5
    assert [segment.met for segment in scene.segments] == [0.75, 0.5]
    assert [segment.attainment for segment in scene.segments] == [0.75, 0.7]
    assert "70.00 % so far, 50.0 % in the last minute" in board.ansi()


def test_cost_counts_gpus_and_their_price(workload: Workload) -> None:
    cluster = ClusterConfig()
    for price, money in ((None, False), (2.0, True)):
        priced = replace(cluster, instance=replace(cluster.instance, gpus=4, usd_per_gpu_hour=price))
        board = Dashboard(priced, workload, workload.profile(cluster))
        board.start(snapshot(16))
        board.record(snapshot(16, 3610.0), change(instance_s=1800.0))
        assert "2.00 GPU-hours" in board.ansi()
        assert ("4.00 USD" in board.ansi()) is money


@pytest.mark.parametrize("time_s", [1234.0, 3600.0, 4000.0])
def test_what_is_shown_of_the_traffic_is_past(workload: Workload, time_s: float) -> None:
    """Twice as long requests from now on: nothing shows of them but in the forecast."""
    config = WorkloadConfig(start_s=3600.0, horizon_s=600.0, forecaster="oracle", predictor="oracle")
    trace, cluster = workload.trace, ClusterConfig()
    scenes = []
    for factor in (1, 2):
        later = np.where(trace.arrival_s < time_s, 1, factor)
        served = Trace(
            arrival_s=trace.arrival_s,
            prompt_tokens=trace.prompt_tokens * later,
            output_tokens=trace.output_tokens * later,
        )
        board = Dashboard(cluster, Workload(config, trace=served), workload.profile(cluster))
        board.start(snapshot(16, time_s))
        scenes.append(board.scene())
    one, other = scenes
    assert one.windows[-1].forecast < other.windows[-1].forecast
    np.testing.assert_array_equal(one.load, other.load)
    assert one.load_now == other.load_now
    assert [window.arrived for window in one.windows] == [window.arrived for window in other.windows]


def test_load_and_windows_are_those_of_the_trace(workload: Workload) -> None:
    board = dashboard(workload, 16, time_s=3930.0)
    scene, profile = board.scene(), workload.profile(ClusterConfig())
    arrival_s = workload.trace.arrival_s

    def load(start_s: float, end_s: float) -> float:
        rows = (arrival_s >= start_s) & (arrival_s < end_s)
        prompt, output = workload.trace.prompt_tokens[rows].sum(), workload.predicted_tokens[rows].sum()
        return float(profile.need(prompt / (end_s - start_s), output / (end_s - start_s)))

    edges_s = scene.load_edges_s
    expected = [load(*edges) for edges in pairwise(edges_s)]
    np.testing.assert_allclose(scene.load, expected, rtol=1e-9)
    assert edges_s[-1] == 3930.0
    assert scene.load_now == pytest.approx(load(3870.0, 3930.0))
    starts_s = [window.start_s for window in scene.windows]
    assert starts_s == [600.0 * k for k in range(9)]
    assert [window.closed for window in scene.windows] == [True] * 6 + [False] * 3
    for window in scene.windows[:6]:
        assert window.arrived == pytest.approx(load(window.start_s, window.start_s + 600.0))
        prompt, output, _ = workload.forecast_at(window.start_s)
        assert window.forecast == pytest.approx(profile.need(prompt[0] / 600.0, output[0] / 600.0))
    assert scene.windows[6].arrived == pytest.approx(load(3600.0, 3930.0))
    assert [window.arrived for window in scene.windows[7:]] == [None, None]
    prompt, output, _ = workload.forecast_at(3930.0)
    assert scene.windows[8].forecast == pytest.approx(profile.need(prompt[2] / 600.0, output[2] / 600.0))


def test_overload_fits(workload: Workload) -> None:
    n = 20_000
    flood = Trace(np.linspace(0.0, 300.0, n), np.full(n, 1000), np.full(n, 100))
    busy = Workload(WorkloadConfig(warmup_s=0.0, start_s=0.0, horizon_s=300.0), trace=flood)
    for slots in (1, 64):
        env = play(busy, 12, cluster={"max_instances": slots}, initial_instances=1)
        assert env.cluster.snapshot().waiting.sum() > 1000
        assert_picture(env.render())
        assert_text(env.dashboard.ansi())
    huge = np.full(64, 10**9)
    board = dashboard(workload, 64, running=huge, waiting=huge, anticipated_peak=np.full(64, 1e9))
    board.record(snapshot(64, 3610.0), change(violations=1e9, instance_s=1e9))
    assert_picture(board.rgb_array())
    assert_text(board.ansi())


@pytest.mark.parametrize("steps", [0, 1, 120])
def test_no_traffic_is_no_trouble(quiet: Workload, steps: int) -> None:
    env = play(quiet, steps)
    assert_picture(env.render())
    text = env.dashboard.ansi()
    assert_text(text)
    assert "SLO        - so far" in text
    assert "0 running, 0 waiting" in text


def test_the_beginning_of_a_trace_has_no_past(quiet: Workload) -> None:
    for time_s in (0.0, 1e-3, 5.0, 20.0):
        board = dashboard(quiet, 4, time_s=time_s)
        assert_picture(board.rgb_array())
        assert_text(board.ansi())
        assert np.isfinite(board.scene().load).all()


def test_numbers_are_short() -> None:
    counts = [0, 999, 1000, 9_949, 9_999, 99_999, 999_499, 999_600, 12_345_678]
    assert [compact(n) for n in counts] == ["0", "999", "1.0k", "9.9k", "10k", "100k", "999k", "1.0M", "12M"]
    assert [per_cent(value, 2) for value in (None, 0.0, 0.5, 0.99999, 1.0)] == (
        ["-", "0.00 %", "50.00 %", "99.99 %", "100 %"]
    )
    assert [duration(value) for value in (0.0, 61.0, 36_000.0)] == ["0:00:00", "0:01:01", "10:00:00"]
