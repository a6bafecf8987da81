"""Every public name has a docstring with an example, and the examples run, as they stand in the reference."""

import doctest
import inspect
import runpy
from pathlib import Path

import pytest

import cmllm_tools as cm
from cmllm_tools.data.format import FORMATS
from cmllm_tools.evaluation.scorers import SCORERS
from cmllm_tools.models.interventions import KINDS
from cmllm_tools.referring.registry import METHODS, all_methods

GIVEN = Path(__file__).parents[1] / "docs/given.py"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public():
    """What people may call, by the name that they write; numbers, paths and tables of names have no docstrings."""
    found = {f"cm.{name}": getattr(cm, name) for name in cm.__all__}
    for room in cm._ROOMS:
        module = getattr(cm, room)
        found |= {f"cm.{room}.{name}": getattr(module, name) for name in module.__all__}
    found |= {f"cm.methods.{name}": method for name, method in all_methods().items() if "cmllm_tools" in method.__module__}
    kinds = (inspect.isclass, inspect.isroutine, inspect.ismodule)
    return {name: value for name, value in found.items() if any(kind(value) for kind in kinds)}


PUBLIC = public()
# An object of several names has its example once.
EXAMPLES = {id(value): (name, value) for name, value in reversed(PUBLIC.items())}


@pytest.fixture(scope="module")
def given():
    return runpy.run_path(str(GIVEN))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Examples write files, and make methods, formats and scorers known; none of it stays."""
    monkeypatch.chdir(tmp_path)
    before = [(known, dict(known)) for known in (METHODS, FORMATS, SCORERS, KINDS)]
    yield
    for known, kept in before:
        known.clear()
        known.update(kept)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    said = inspect.getdoc(PUBLIC[name])
    assert said.count("Examples:") == 1
    assert ">>> " in said.split("Examples:")[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), EXAMPLES.values(), ids=[name for name, _ in EXAMPLES.values()])
def test_examples_run_as_they_stand(name, value, given, capsys):
    said = doctest.DocTestParser().get_doctest(inspect.getdoc(value), dict(given), name, None, None)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    assert said.examples
    runner.run(said, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out
