"""Layers and updates are written one way, wherever a person reads them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

import cmllm_tools as cm
from cmllm_tools.cli import main
from cmllm_tools.notation import layers_text, number_ranges, text_table, updates_text, window_text

ROOT = Path(__file__).parents[1]
# Both ends of a window are joined by two dots, and it is followed by its length; n updates are no n + 1 steps.
OTHER_WAYS = {
    "a window with a dash or a word": r"\blayers? \d+ ?(?:-|\u2013|to|up to) ?\d+",
    "a window without its length": r"\blayers \d+\.\.\d+\b(?! \(\d+\))",
    "layers counted from an end": r"\b(?:first|last) (?:two|three|four|five|six|\d+) layers\b",
    "a run of ten counted in steps": r"\b11 steps\b",
}


def texts():
    """What is read, by where it stands: lessons, README, documents, strings of the package, modules of widgets."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield path.name, "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield path.name, path.read_text(encoding="utf-8")
    package = Path(cm.__file__).parent
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        yield str(path.relative_to(package)), "\n".join(found)
    for path in sorted(package.rglob("*.js")):
        yield path.name, path.read_text(encoding="utf-8")


def test_ranges_name_both_ends():
    assert number_ranges((0, 1, 2, 3, 7)) == "0..3, 7"


def test_a_window_is_written_with_its_last_layer_and_its_length():
    assert window_text((0, 3)) == "layers 0..2 (3)"
    assert window_text((4, 5)) == "layer 4"
    assert layers_text((0, 2, 3)) == "layers 0, 2..3 (3)"


def test_updates():
    assert (updates_text(1), updates_text(10)) == ("1 update", "10 updates")


@pytest.mark.parametrize(("where", "text"), list(texts()), ids=lambda value: value if len(value) < 60 else "")
def test_there_is_no_other_way_to_write_them(where, text):
    found = {way: re.findall(pattern, text) for way, pattern in OTHER_WAYS.items()}
    assert not any(found.values()), (where, found)


@pytest.mark.parametrize(
    "text", ["the slider says layers 0 - 3", "layers 0 to 2", "layers 0..2", "the first four layers", "11 steps, finished"]
)
def test_other_ways_are_seen(text):
    assert any(re.search(pattern, text) for pattern in OTHER_WAYS.values())


def test_a_run_is_told_by_its_updates_and_window(mllm, prompt, box, tmp_path, capsys):
    """`steps=2`: 2 updates, and 3 steps, of which none says 3."""
    run = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=2, layers=(0, 3)), callbacks=[cm.ProgressBar()])
    bar = capsys.readouterr().err
    told = [repr(run), run._repr_html_(), bar, str(cm.figures.step_player(run).to_dict())]
    assert [number for number in map(int, re.findall(r"(\d+) (?:updates|steps)", " ".join(told))) if number != 2] == []
    assert "2 updates" in told[0]
    assert "layers 0..2 (3)" in told[0]
    assert "2/2" in bar
    image = tmp_path / "image.png"
    prompt.image.save(image)
    corners = [str(value) for value in (box.x0, box.y0, box.x1, box.y1)]
    assert main(["steer", str(image), "describe the object.", "--box", *corners, "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "3 steps" not in said
    assert [line.split()[0] for line in said.splitlines() if re.match(r" +\d", line)] == ["0", "1", "2"]


def test_columns_of_a_table_are_as_wide_as_their_widest_cell():
    rows = [["head", "share", "words"], ["3", "100.0%", "a"], ["12", "5.0%", ""]]
    assert text_table(rows, ">><", (5,)).splitlines() == [" head   share  words", "    3  100.0%  a", "   12    5.0%"]
