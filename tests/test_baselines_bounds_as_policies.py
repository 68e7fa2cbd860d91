"""The bounds as policies: the feasible bound, and hindsight and best static from kept files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import POLICIES, Feasible, make_fitted_policy, make_policy
from baselines.bounds import kept
from baselines.bounds.kept import KeptBounds, file_name, read_bounds, run_lengths
from baselines.feasible import expected_need
from experiments.totals import play_totals
from preserve_gym.config import WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario, trace_digest
from preserve_gym.traces.rate_process import Factor, RateProcess, RateStream
from preserve_gym.workload import Workload
from tests.baseline_observations import CLUSTER, PROFILE, observe

GENERATED = {"trace": "synthetic-chat", "start_s": 36_000.0, "horizon_s": 600.0}


class TestFeasible:
    def test_need_is_the_highest_expected_over_the_cold_start(self) -> None:
        # Prompt tokens alone count, in instances; a known base, and a factor that is known up to now.
        base = np.array([1.0, 1.0, 1.0, 4.0, 1.0, 1.0]) * PROFILE.prompt_tokens_per_s
        stream = RateStream(np.stack((base, base, 0 * base)), (Factor(np.array([[1.0, 1, 1, 1, 2, 2]])),))
        need = expected_need(RateProcess((stream,)), PROFILE, lead_s=10.0)
        assert need.tolist() == pytest.approx([1.0, 4.0, 4.0, 4.0, 1.0, 2.0])

    def test_law(self) -> None:
        policy = self.make([1.0, 2.4, 0.6], headroom=1.5)
        state = policy.initial_state()
        targets = []
        for time_s in (600.0, 605.0, 610.0):
            _, state = policy.predict(observe(time_s=time_s), state)
            targets.append(policy.decide({"time_s": time_s}, policy.initial_state()))
        assert targets == [2, 4, 1]
        assert state.highest() == 4  # down to the highest of 60 s
        with pytest.raises(InputError, match=r"Feasible.needs: expected a time from 600 to 615 s"):
            policy.decide({"time_s": 615.0}, policy.initial_state())

    @staticmethod
    def make(needs: list[float], **parameters: float) -> Feasible:
        known = {"needs": np.array(needs), "needs_now": np.array(needs)}
        return Feasible(CLUSTER, PROFILE, needs_from_s=600.0, needs_bin_s=5.0, **known, **parameters)

    def test_what_is_held_corrects_the_need(self) -> None:
        # At its profiled load an instance holds 20 requests of 500 prompt tokens and half of 100 others.
        full = 20 * 550 / CLUSTER.instance.kv_tokens
        held = np.zeros(CLUSTER.max_instances)
        held[:2] = 2.0 * full  # 4 times what a need of 1 holds
        obs = {**observe(time_s=600.0, ready=2), "kv_use": held}
        targets = {}
        for weight in (0.0, 0.5, 1.0):
            policy = self.make([1.0], headroom=1.5, load_weight=weight)
            targets[weight] = policy.decide(obs, policy.initial_state())
        assert targets == {0.0: 2, 0.5: 3, 1.0: 6}
        quiet = self.make([0.0], load_weight=0.5)
        assert quiet.decide(obs, quiet.initial_state()) == 1
        with pytest.raises(InputError, match=r"Feasible.load_weight: expected a number in \[0, 1\], got 2"):
            self.make([1.0], load_weight=2.0)

    def test_it_is_fitted_to_what_the_workload_is_drawn_from(self) -> None:
        workload = Workload(WorkloadConfig(**GENERATED))
        policy: Any = make_fitted_policy("feasible", CLUSTER, workload, headroom=1.3)
        assert POLICIES["feasible"].oracle
        rates = workload.trace.rates
        assert rates is not None
        true = workload.profile(CLUSTER).need(*rates.true[1:])
        # What is expected a little ahead lies close to what comes, and above it in the mean, as a maximum.
        assert np.corrcoef(policy.needs, true)[0, 1] > 0.99
        assert true.mean() < policy.needs.mean() < 1.1 * true.mean()
        assert "needs" not in repr(policy)

    def test_a_recording_has_no_rates(self) -> None:
        workload = Workload(WorkloadConfig(**GENERATED))
        recorded = Workload(workload.config, trace=workload.trace.take(slice(None)))
        with pytest.raises(
            InputError, match=r"feasible: trace 'synthetic-chat': expected one that is generated"
        ):
            make_fitted_policy("feasible", CLUSTER, recorded)
        with pytest.raises(InputError, match=r"feasible.needs: expected a value, as there is no default"):
            make_policy("feasible", CLUSTER, PROFILE)


class TestKept:
    @pytest.fixture
    def scenario(self, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(kept, "FOLDER", tmp_path)
        scenario = load_scenario("code")
        workload = scenario.make_workload("test")
        row = {
            "scenario": "code",
            "router": "least-requests",
            "static_instances": 3,
            "static_attainment": 0.5,
        }
        starts_s = workload.evaluation_windows.tolist()
        targets = [[(0, 9), (2, 8)], [(0, 7)]]
        bounds = KeptBounds(row, trace_digest(workload.trace), starts_s, 10.0, targets)
        return scenario, workload, bounds, tmp_path / file_name("code", "test", 0)

    def test_they_play(self, scenario: Any) -> None:
        of, workload, bounds, path = scenario
        bounds.write(path)
        assert read_bounds(path).targets == [[[0, 9], [2, 8]], [[0, 7]]]
        policy: Any = make_fitted_policy("hindsight", of.cluster, workload)
        first_s, second_s = workload.evaluation_windows.tolist()
        assert [policy.initial_instances(start_s) for start_s in (first_s, second_s)] == [9, 7]
        times_s = (first_s, first_s + 10.0, first_s + 20.0, first_s + 500.0, second_s, second_s + 590.0)
        assert [policy.decide({"time_s": t}, None) for t in times_s] == [9, 9, 8, 8, 7, 7]
        static: Any = make_fitted_policy("best-static", of.cluster, workload)
        assert (static.name, static.instances) == ("best-static", 3)

    def test_what_is_missing_or_of_another_trace_is_said(self, scenario: Any) -> None:
        of, workload, bounds, path = scenario
        with pytest.raises(InputError, match=r"hindsight: .*code-test-seed0.json: no such file; python -m"):
            make_fitted_policy("hindsight", of.cluster, workload)
        replace(bounds, trace_sha256="0" * 64).write(path)
        with pytest.raises(InputError, match=r"best-static: .*expected bounds of this trace"):
            make_fitted_policy("best-static", of.cluster, workload)
        replace(bounds, targets=[]).write(path)
        with pytest.raises(InputError, match=r"hindsight: expected a scenario .* of code reaches 50.00 %"):
            make_fitted_policy("hindsight", of.cluster, workload)
        path.write_text("{}")
        with pytest.raises(InputError, match=r"expected bounds of python -m experiments\.bounds"):
            make_fitted_policy("hindsight", of.cluster, workload)
        with pytest.raises(InputError, match="hindsight: expected the split validation or test of a named"):
            make_fitted_policy("hindsight", CLUSTER, workload)


def test_run_lengths() -> None:
    assert run_lengths(np.array([3, 3, 1, 1, 1, 2])) == [(0, 3), (2, 1), (5, 2)]
    assert run_lengths(np.array([0])) == [(0, 0)]


def test_kept_bounds_are_what_their_schedules_reach(data_dir: Path) -> None:
    for name in ("chat", "code", "long-prompt"):
        scenario = load_scenario(name)
        workload = scenario.make_workload("test")
        row = kept.bounds_for("", scenario.cluster, workload).row
        for policy in ("hindsight", "best-static"):
            totals = play_totals(workload, make_fitted_policy(policy, scenario.cluster, workload))
            bound = policy.removeprefix("best-")
            figures = (row[f"{bound}_attainment"], row[f"{bound}_gpu_hours"])
            assert (totals.attainment, totals.gpu_hours) == pytest.approx(figures, abs=1e-9)
