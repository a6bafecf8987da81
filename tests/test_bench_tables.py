"""The table of an evaluation says what the README says, in its words, with intervals."""

from pathlib import Path

from cmllm_tools.bench.tables import COLUMNS, evaluation_table

RESULT = {
    "n": 100,
    "unsteered": {
        "describe_valid": 0.98,
        "a_or_b": 0.51,
        "marked": 0.86,
        "marked_by_overlay": {"triangle": 0.76},
    },
    "controlmllm_plus": {
        "box": {"a_or_b": 1.0, "describe": 0.96, "hallucinated": 0.04},
        "random_background": {"a_or_b": 0.49, "describe": 0.32, "hallucinated": 0.09},
    },
    "seconds": 330.4,
}


def test_words_are_those_of_the_readme():
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    table = evaluation_table(RESULT)
    for words in (*COLUMNS, "unsteered", "ControlMLLM++, box", "ControlMLLM++, control: a box in the background"):
        assert words in readme
        assert words in table
    assert "object marked with an overlay is named in" in readme


def test_figures_stand_with_wilson_s_interval():
    """(0.96 + 1.92 / 100) / (1 + 3.84 / 100) is the centre for 96 of 100; all of 100 leave room below only."""
    lines = evaluation_table(RESULT).splitlines()
    (box,) = [line for line in lines if line.startswith("ControlMLLM++, box")]
    assert box.split("  ")[1:] != []
    assert "100 (96 to 100)" in box
    assert "96 (90 to 98)" in box
    assert "2 (1 to 7) *" in lines[1]
    assert "100 scenes, 330 s" in lines[-1]
