from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from preserve_gym.data import data_dir, find_data


def test_the_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    assert data_dir() == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_is_the_users_cache(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("PRESERVE_GYM_DATA")
    else:
        monkeypatch.setenv("PRESERVE_GYM_DATA", value)
    assert data_dir() == Path(platformdirs.user_cache_dir("preserve_gym", appauthor=False))


def test_find_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "a.csv").touch()
    assert find_data("traces/a.csv") == tmp_path / "traces" / "a.csv"
    assert find_data("traces/b.csv") is None
    assert find_data("traces") is None
