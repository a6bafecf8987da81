import re
from pathlib import Path

import lessons
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


# Where Linux lets nobody write, root neither.
READ_ONLY = Path("/sys")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_store_no_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_a_lesson_is_run_again_when_any_file_of_the_package_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "ROOT", tmp_path)
    (tmp_path / "cmllm_tools").mkdir()
    (tmp_path / "notebooks").mkdir()
    lesson = tmp_path / "notebooks/01.ipynb"
    lesson.write_text("{}", "utf-8")
    seen = {lessons._digest(lesson)}
    for name in ("a.py", "a.js", "a.safetensors"):
        for text in ("1", "2"):
            (tmp_path / "cmllm_tools" / name).write_text(text, "utf-8")
            seen.add(lessons._digest(lesson))
    assert len(seen) == 7


def test_a_run_that_cannot_be_written_leaves_the_one_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "RUNS", tmp_path)
    monkeypatch.setattr(lessons.NotebookClient, "execute", lambda *_, **__: None)
    monkeypatch.setattr(lessons, "_digest", lambda path: "old")
    path = NOTEBOOKS[0]
    lessons.run(path, tmp_path)
    monkeypatch.setattr(lessons, "_digest", lambda path: "new")
    with monkeypatch.context() as full, pytest.raises(OSError, match="no space"):
        full.setattr(lessons, "write_whole", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        lessons.run(path, tmp_path)
    assert [kept.name for kept in tmp_path.iterdir()] == [f"{path.stem}-old.ipynb"]
    lessons.run(path, tmp_path)
    assert [kept.name for kept in tmp_path.iterdir()] == [f"{path.stem}-new.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path):
    """Where nothing can be written, as a class's shared folder is."""
    notebook = lessons.run(path, READ_ONLY)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        bundle = output.get("data", {})
        # What GitHub and an exported page show in the figure's place.
        assert "application/vnd.plotly.v1+json" not in bundle or "<script" not in bundle["text/html"]
        # The last line of a lesson's claims.
        if "claims held" in output.get("text", ""):
            held, made = re.search(r"(\d+) of (\d+) claims held", output["text"]).groups()
            assert held == made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lessons_say_for_whom_they_are_and_have_questions_for_the_class(path):
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    assert re.search(r"\*\*Time\.\*\* \d+ minutes\. \*\*Know before\.\*\* \w", sources[0])
    (questions,) = (source for source in sources if source.startswith("## Questions for the class"))
    assert questions.count("<details><summary>Answer</summary>") == questions.count("</details>") == 3
    assert questions.count("?\n\n<details>") + questions.count(".\n\n<details>") == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lessons_answer_what_they_ask_and_count_their_claims(path):
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    titles = [source.split("\n")[-1] for source in sources]
    assert "Predict before you run" in sources[0]
    assert "## You predicted / it was" in titles
    assert "print(" in sources[titles.index("## You predicted / it was") + 1]
    assert sum("claims held" in source for source in sources) == 1
