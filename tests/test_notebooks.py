"""The notebooks run from beginning to end, and are committed without what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def each() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each()
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
@each()
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))  # nothing but what is embedded
    monkeypatch.delenv("MPLBACKEND")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    pictures = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert pictures
    assert all(any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in pictures)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 2
