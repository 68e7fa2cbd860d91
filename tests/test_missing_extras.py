"""Without an optional library, what needs it says so in one line, with the line that installs it."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents import search, train
from agents.algorithms import ALGORITHMS, make_learner
from agents.hyperparameters import load_hyperparameters
from experiments import ray_pool, report_page
from preserve_gym import InputError
from preserve_gym.forecasting import make_forecaster
from preserve_gym.latency import measure
from preserve_gym.prediction import predict_lengths, text_lengths
from preserve_gym.traces import synthetic_trace

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


ENV_ID = "preserve/Autoscale-v0"
SB3 = ROOT / "agents" / "sb3_vec_env.py"


def forecaster(name: str) -> Callable[[], Any]:
    return lambda: make_forecaster(name, 600.0)


def learned_lengths() -> Any:
    trace = synthetic_trace("chat", duration_s=600.0, seed=0)
    return predict_lengths("learned", trace, seed=0)


def report() -> Any:
    return report_page.page(None, None, {})  # type: ignore[arg-type]


def tensorboard() -> Any:
    train._check(train.Options(tensorboard=True))


def maskable_ppo() -> Any:
    class Envs:
        action_space = type("Space", (), {"n": 5})

    return make_learner(ALGORITHMS["maskable-ppo"], load_hyperparameters("maskable-ppo", ENV_ID), Envs(), 0)


LENGTHS = "length predictor 'learned'"
CASES: list[tuple[str, Callable[[], Any], str, str, str | None]] = [
    # the library, what needs it, the message up to "is missing", the extra, what is imported before it
    ("sktime", forecaster("ets"), "forecast 'ets': sktime", "forecast", None),
    ("sktime", forecaster("sktime:Naive"), "forecast 'sktime:Naive': sktime", "forecast", None),
    ("statsmodels", forecaster("ets"), "forecast 'ets': statsmodels", "forecast", "sktime"),
    ("statsmodels", forecaster("theta"), "forecast 'theta': statsmodels", "forecast", "sktime"),
    ("statsmodels", forecaster("arima"), "forecast 'arima': statsmodels", "forecast", "sktime"),
    ("prophet", forecaster("prophet"), "forecast 'prophet': prophet", "prophet", "sktime"),
    ("sklearn", forecaster("trees"), "forecast 'trees': scikit-learn", "forecast", None),
    ("sklearn", forecaster("ensemble"), "forecast 'trees': scikit-learn", "forecast", None),
    ("torch", forecaster("lstm"), "forecast: PyTorch", "rl", None),
    ("torch", forecaster("mlstm"), "forecast: PyTorch", "rl", None),
    ("sklearn", learned_lengths, f"{LENGTHS}: scikit-learn", "forecast", None),
    ("torch", lambda: text_lengths._check_installed("cpu"), "text lengths: torch", "text", None),
    (
        "transformers",
        lambda: text_lengths._check_installed("cpu"),
        "text lengths: transformers",
        "text",
        "torch",
    ),
    ("torch", lambda: measure._find_device("cuda"), "measure: PyTorch", "rl", None),
    ("ray", ray_pool._ray, "--backend ray: Ray", "ray", None),
    ("sb3_contrib", maskable_ppo, "MaskablePPO: sb3_contrib", "rl", "torch"),
    ("plotly", report, "report: plotly", "report", "jinja2"),
    ("jinja2", report, "report: jinja2", "report", None),
    ("optuna", lambda: search._run(["--scenario", "chat"]), f"{search.PROGRAM}: optuna", "search", None),
    ("tensorboard", tensorboard, "--tensorboard: tensorboard", "tensorboard", None),
    ("stable_baselines3", lambda: runpy.run_path(str(SB3)), "SB3VecEnv: stable_baselines3", "rl", None),
]


@pytest.mark.parametrize(
    ("library", "use", "named", "extra", "before"),
    [
        # PyTorch takes seconds to import.
        pytest.param(*case, id=case[2], marks=[pytest.mark.slow] if case[-1] == "torch" else [])
        for case in CASES
    ],
)
def test_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    use: Callable[[], Any],
    named: str,
    extra: str,
    before: str | None,
) -> None:
    if before is not None:
        pytest.importorskip(before)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        use()
    assert str(error.value) == f"{named} is missing: pip install 'preserve-gym[{extra}]'"
    assert extra in EXTRAS


@pytest.mark.slow
def test_training_without_its_extra_ends_in_one_line() -> None:
    code = (
        "import sys; sys.modules['stable_baselines3'] = None; "
        "from agents.train import main; sys.exit(main(['--scenario', 'chat', '--steps', '10']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: SB3VecEnv: stable_baselines3 is missing: pip install 'preserve-gym[rl]'"
    ]
