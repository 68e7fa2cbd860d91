"""Releases that the package cannot run with are refused at import, in one line that says what is needed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from preserve_gym import supported

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_is_needed_is_what_pip_is_told() -> None:
    requirements = map(Requirement, PROJECT["dependencies"])
    assert {r.name: str(r.specifier) for r in requirements} == {
        name: f">={release}" for name, release in supported.OLDEST.items()
    }
    (oldest, newest) = supported.PYTHON
    assert PROJECT["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    classifiers = [
        f"Programming Language :: Python :: 3.{minor}" for minor in range(oldest[1], newest[1] + 1)
    ]
    assert [c for c in PROJECT["classifiers"] if "Python :: 3." in c] == classifiers


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        ("0.29.1", True),
        ("1.0.0", True),
        ("1.0.0rc1", True),
        ("1.1.0rc2", False),
        ("1.1", False),
        ("1.10.0", False),
        ("2.0+local.1", False),
        ("unknown", True),
        (None, False),
    ],
)
def test_releases_of_gymnasium(monkeypatch: pytest.MonkeyPatch, release: str | None, refused: bool) -> None:
    installed = supported._installed
    monkeypatch.setattr(
        supported, "_installed", lambda name: release if name == "gymnasium" else installed(name)
    )
    if not refused:
        return supported.refuse_unsupported()
    with pytest.raises(ImportError) as error:
        supported.refuse_unsupported()
    assert str(error.value) == (
        f"preserve_gym needs gymnasium 1.1 or newer, found {release}: pip install 'gymnasium>=1.1'"
    )
    return None


def test_all_that_is_too_old_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supported, "_installed", lambda name: "1.26.4" if name == "numpy" else "0.1")
    with pytest.raises(ImportError, match=r"numpy 2.1 or newer, found 1.26.4.*'tyro>=0.9'$") as error:
        supported.refuse_unsupported()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_other_pythons(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    shown = f"{version[0]}.{version[1]}"
    with pytest.raises(ImportError, match=rf"^preserve_gym needs Python 3.11 to 3.13, this is {shown} \("):
        supported.refuse_unsupported()


def test_an_old_gymnasium_is_refused_before_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "gymnasium.py").write_text("raise RuntimeError('imported')\n")
    information = tmp_path / "gymnasium-0.29.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: gymnasium\nVersion: 0.29.1\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import preserve_gym"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ImportError: preserve_gym needs gymnasium 1.1 or newer")
