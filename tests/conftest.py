"""Fixtures and settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports pyplot: a test must not need a display.
os.environ["MPLBACKEND"] = "Agg"
# Tests run beside each other: more threads in each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first call of a compiled function takes seconds, whatever the example.
hypothesis.settings.register_profile("preserve_gym", deadline=None, derandomize=True)
hypothesis.settings.load_profile("preserve_gym")


@pytest.fixture(scope="session", autouse=True)
def _isolated_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Without PRESERVE_GYM_DATA, look into an empty folder: never into the user's cache."""
    if os.environ.get("PRESERVE_GYM_DATA"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRESERVE_GYM_DATA", str(tmp_path_factory.mktemp("no_data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _isolated_forecasts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forecasts are computed in each session, never read from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path_factory.mktemp("forecasts")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _isolated_datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Minari's datasets of each session are its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="module")
def one_thread_of_torch() -> Iterator[None]:
    """For tiny networks on a busy machine, where two threads wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir(_isolated_data_dir: None) -> Path:
    """The folder with traces/, profiles/ and golden/.

    A test that asks for it is skipped where the folder is missing, and fails instead where
    PRESERVE_GYM_REQUIRE_DATA is 1.
    """
    folder = Path(os.environ["PRESERVE_GYM_DATA"])
    if (folder / "traces").is_dir():
        return folder
    reason = "PRESERVE_GYM_DATA does not name a folder with traces/, profiles/ and golden/"
    if os.environ.get("PRESERVE_GYM_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
