"""What is to be cited: a source for each method that has one, and one list of them."""

import re
from pathlib import Path

import pytest
import yaml

import cmllm_tools as cm
from cmllm_tools.models.sources import _BY_CLASS, _BY_NAME
from cmllm_tools.referring.citing import entries
from cmllm_tools.referring.registry import all_methods

CITATION = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text("utf-8"))
FIELD = re.compile(r"^\s*(\w+)\s*= \{(.*)\},$", re.M)


def fields(entry):
    return {name: value.replace("{", "").replace("}", "") for name, value in FIELD.findall(entry)}


def keys(text):
    return re.findall(r"^@\w+\{([^,]+),", text, re.M)


def test_entries_are_whole():
    for key, entry in entries().items():
        given = fields(entry)
        assert entry.count("{") == entry.count("}"), key
        assert {"title", "author", "year"} <= set(given), key
        if key != "cmllm_tools":
            assert re.fullmatch(r"\d{4}\.\d{5}", given["eprint"]), key


def test_every_source_that_is_declared_is_there():
    declared = {key for method in all_methods().values() for key in method.source}
    declared |= {*_BY_CLASS.values(), *(key for found in _BY_NAME.values() for key in found)}
    assert declared <= set(entries())


def test_a_paper_that_a_methods_docstring_names_is_its_source():
    """The first one; others are named for comparison."""
    for name, method in all_methods().items():
        papers = re.findall(r"\d{4}\.\d{5}", method.__doc__.split("Examples:")[0])
        if papers and method.__module__.startswith("cmllm_tools"):
            cited = {fields(entries()[key])["eprint"] for key in method.source}
            assert papers[0] in cited or name == "OutsideHidden", name


def test_the_citation_file_says_the_same():
    own = fields(entries()["cmllm_tools"])
    assert (CITATION["title"], str(CITATION["version"])) == (own["title"], cm.__version__)
    assert own["version"] == cm.__version__
    papers = {fields(entry)["eprint"]: fields(entry)["title"] for key, entry in entries().items() if key != "cmllm_tools"}
    for reference in CITATION["references"]:
        number = reference["identifiers"][0]["value"].removeprefix("arXiv:")
        assert papers[number] == reference["title"]


def test_what_was_used_is_cited_once(mllm, prompt, box):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    assert keys(cm.cite(trace)) == ["cmllm_tools", "wu2026controlmllmplus", "wu2024controlmllm"]
    assert keys(cm.cite(cm.ControlMLLM, cm.ControlMLLM(), trace, mllm)) == [
        "cmllm_tools", "wu2024controlmllm", "wu2026controlmllmplus",
    ]  # fmt: skip
    assert keys(cm.cite()) == ["cmllm_tools"]
    assert "leng2024vcd" in keys(cm.cite(cm.ControlMLLMPlus(contrast=0.5)))


def test_a_method_of_ones_own_may_bring_its_entry():
    class Mine(cm.methods.RedCircle):
        source = ("@misc{mine, title = {Mine}}",)

    class Lost(cm.methods.RedCircle):
        source = ("nowhere",)

    assert cm.cite(Mine).endswith("@misc{mine, title = {Mine}}\n")
    with pytest.raises(cm.SettingsError, match=r"key of sources\.bib, or an entry of BibTeX; got nowhere"):
        cm.cite(Lost())


@pytest.mark.parametrize("given", [None, "ControlMLLM", 3, cm.Method, object])
def test_what_cannot_be_cited_is_refused(given):
    if given is cm.Method:
        assert keys(cm.cite(given)) == ["cmllm_tools"]
        return
    with pytest.raises(cm.SettingsError, match="must be a method, a model, a run or an outcome"):
        cm.cite(given)


def test_a_run_whose_model_has_no_class_is_cited(mllm, prompt, box):
    """Files of before have none."""
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    del trace.provenance.model["class"]
    assert "wu2026controlmllmplus" in keys(cm.cite(trace))
