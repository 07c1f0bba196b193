"""In a notebook: docs/first-steps.ipynb, executed in a kernel as a reader does."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


def execute(cells: list[Any], folder: Path) -> tuple[list[Any], list[str]]:
    """The cells with their outputs, executed in a kernel of their own in `folder`, and what its widgets show."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    client.execute()
    return list(notebook.cells), [str(state.get("value")) for state in client.widget_state.values()]


def shown(cell: Any, kind: str) -> str:
    """All that a cell has shown of a MIME type, or for `stream` what it has printed."""
    if kind == "stream":
        return "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")
    return "".join(output["data"].get(kind, "") for output in cell.outputs if "data" in output)


def test_the_first_steps_run_in_a_notebook_with_a_bar_a_summary_and_curves_and_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = nbformat.read(ROOT / "docs" / "first-steps.ipynb", as_version=4).cells
    cells.append(nbformat.v4.new_code_cell("import sys\nprint('ray' in sys.modules)"))
    executed, widgets = execute(cells, tmp_path)
    done = {cell.source: cell for cell in executed if cell.cell_type == "code"}
    (training,) = (cell for source, cell in done.items() if source.startswith("run = blitz.train"))
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in training.outputs)
    assert any("500/500" in value for value in widgets)
    assert "<svg" in shown(done["run"], "text/html")
    assert "val/accuracy" in shown(done["run"], "text/html")
    assert float(shown(done['run.metrics["val/accuracy"]'], "text/plain")) > 0.9
    assert shown(done["import sys\nprint('ray' in sys.modules)"], "stream") == "False\n"
