"""The site's pages without MkDocs: code runs as it stands, shell lines have options that exist, links lead somewhere."""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
import reference

from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.cli import _parser
from cmllm_tools.referring.registry import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOW_TO = sorted((DOCS / "howto").glob("*.md"))
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
CODE = re.compile(r"^( *)```python\n(.*?)^\1```", re.M | re.S)
# In the place of a checkpoint from the hub, a folder that has one.
HUB = re.compile(r'"llava-hf/[\w.-]+"')


def snippets(page):
    code = [re.sub(f"^{indent}", "", body, flags=re.M) for indent, body in CODE.findall(page.read_text(encoding="utf-8"))]
    return [HUB.sub(repr(str(HELDOUT.parent / "model")), part) for part in code]


def commands(page):
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^    (cmllm (?:.*\\\n)*.*)", text, re.M)


@pytest.fixture(scope="module")
def given():
    return runpy.run_path(str(DOCS / "given.py"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in HOW_TO if snippets(page)], ids=lambda page: page.stem)
def test_a_tasks_code_runs_as_it_stands(page, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What Start has made, as the pages' index says.
    names = {name: given[name] for name in ("cm", "mllm", "scene", "prompt", "box")} | {"__name__": "pasted"}
    known = dict(METHODS)
    try:
        for snippet in snippets(page):
            exec(compile(snippet, page.name, "exec"), names)  # noqa: S102
    finally:
        METHODS.clear()
        METHODS.update(known)


def test_the_first_page_says_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "pasted"}
    for snippet in snippets(DOCS / "start.md"):
        exec(compile(snippet, "start.md", "exec"), names)  # noqa: S102
    said = re.findall(r"^print\(.*\)  # (.*)", "".join(snippets(DOCS / "start.md")), re.M)
    assert said
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_shell_lines_have_options_that_exist(page):
    for line in commands(page):
        words = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
        words = ["some/model" if word == "..." else word for word in words]
        if len(words) > 1:
            assert _parser(words).parse_args(words).run, line


def plain_text(page):
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


def options_in(line):
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_targets_of_make_that_are_named_are_there(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    text = page.read_text(encoding="utf-8")
    # In a line of its own, or in backticks; elsewhere "make" is a word.
    named = {line.split()[1] for line in re.findall(r"^    make [a-z]+|`make [a-z]+", text, re.M)}
    assert named <= targets


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if "python -m benchmarks" in plain_text(p)], ids=lambda page: page.stem)
def test_benchmarks_that_are_named_are_there_with_their_options(page, capsys, monkeypatch):
    """A figure is worth what can be measured again: its command is taken by the program that it names."""
    for name, rest in re.findall(r"`python -m (benchmarks\.\w+)([^`]*)`", plain_text(page)):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 0
        assert options_in(rest) <= options_in(capsys.readouterr().out), (name, rest)


@pytest.mark.parametrize("page", [page for page in PAGES if "`cmllm " in plain_text(page)], ids=lambda page: page.stem)
def test_commands_in_a_sentence_are_there_with_their_options(page, capsys):
    for line in re.findall(r"`cmllm ([a-z][^`]*)`", plain_text(page)):
        command = line.split()[0]
        with pytest.raises(SystemExit) as ended:
            _parser([command]).parse_args([command, "--help"])
        assert ended.value.code == 0, line
        shown = options_in(capsys.readouterr().out)
        # `cmllm data check` has commands of its own, each with its help.
        assert options_in(line) <= shown or "{" in line, line


def places(text):
    """What a page's headings can be linked to as, as GitHub and MkDocs name them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {
        re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in re.findall(r"^#+ (.*)", plain, re.M)
    }


def links(text):
    plain = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", plain) if not re.match(r"[a-z]+:", link)]


def texts():
    for path in PAGES:
        yield path, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield path, "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_links_lead_somewhere():
    astray = []
    for path, text in texts():
        for link in links(text):
            file, _, place = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            missing = not target.exists() or (
                target.suffix == ".md" and place and place not in places(target.read_text("utf-8"))
            )
            if missing:
                astray.append(f"{path.relative_to(ROOT)}: {link}")
    assert astray == []


def test_every_public_name_has_its_place_in_the_reference():
    pages = reference.entries()
    assert all(pages.values())


def test_every_task_is_on_the_first_page_of_tasks():
    listed = set(links((DOCS / "howto/README.md").read_text("utf-8")))
    assert {page.name for page in HOW_TO} - {"README.md"} <= listed
