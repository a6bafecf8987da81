from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# Seconds after which a cell hangs: a lesson of a minute may take many on a busy machine.
HANGS = 15 * 60
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_store_no_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        bundle = output.get("data", {})
        # What GitHub and an exported page show in the figure's place.
        assert "application/vnd.plotly.v1+json" not in bundle or "<script" not in bundle["text/html"]
