from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import preserve_gym

ROOT = Path(__file__).parents[1]

# Runs in a fresh interpreter. Everything installed that the core does not depend on is made
# unimportable, so that an import of an extra at the head of a module fails here as it would for a user
# who installed the core only.
IMPORT_ALL_WITH_CORE_ONLY = """
import importlib, importlib.metadata, pkgutil, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

core, pending = set(), ["preserve-gym"]
while pending:
    name = canonicalize_name(pending.pop())
    if name not in core:
        core.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)

blocked = {
    module
    for module, distributions in importlib.metadata.packages_distributions().items()
    if not core & {canonicalize_name(distribution) for distribution in distributions}
} - {"packaging"}
assert "pytest" in blocked and "numpy" not in blocked, blocked

class Blocker:
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{fullname} is not a core dependency", name=fullname)

sys.meta_path.insert(0, Blocker())
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def test_core_imports_no_optional_dependency() -> None:
    command = [sys.executable, "-c", IMPORT_ALL_WITH_CORE_ONLY, "preserve_gym", "baselines", "experiments"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_wheel_holds_the_package_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"preserve_gym-{preserve_gym.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"preserve_gym-{preserve_gym.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"preserve_gym", metadata}
    assert "preserve_gym/py.typed" in names
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "preserve_gym").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= set(names)


STEPPED = ("preserve/Autoscale-v0", "preserve/Route-v0", "preserve/Cluster-v0")


@pytest.mark.slow
def test_the_wheel_alone_steps_the_ids(tmp_path: Path) -> None:
    """In an empty environment; continuous integration does so with every supported Python."""

    def run(*command: str | Path, **environment: str) -> str:
        result = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "empty")
    empty = tmp_path / "empty" / "bin" / "python"
    run(empty, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    shown = run(empty, "-I", ROOT / "tests" / "step_ids.py", *STEPPED, PRESERVE_GYM_FORECASTS=str(tmp_path))
    assert shown.splitlines() == [*STEPPED, str(len(STEPPED))]


def test_the_citation_is_of_this_release() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == preserve_gym.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{preserve_gym.__version__}]" in changelog
