"""What starting costs: the package and its command line load nothing heavy before something needs it."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import cmllm_tools as cm
from cmllm_tools.cli import main
from cmllm_tools.cli.commands import COMMANDS

HEAVY = ["IPython", "PIL", "numpy", "plotly", "scipy", "tokenizers", "torch", "transformers"]
LOADED = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_command_line_says_what_it_is_without_loading_a_model(option):
    code = f"from cmllm_tools.cli import main\ntry: main(['{option}'])\nexcept SystemExit as end: print(end.code)\n{LOADED}"
    *_, status, heavy = run(code)
    assert (status, heavy) == ("0", "[]")


def test_the_command_line_starts_fast():
    """CPU seconds, as others may use the machine; and against Python's own start, as a machine may be slow."""

    def seconds(*arguments):
        code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
        runs = [subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True) for _ in range(5)]
        return median(float(done.stdout) for done in runs)

    bare = seconds(sys.executable, "-c", "")
    assert seconds(sys.executable, "-m", "cmllm_tools.cli", "--version") < max(0.3, 15 * bare)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    return tmp_path


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.mark.parametrize("given", [["--show-completion"], ["--print-completion", "zsh"], ["--show-completion", "fish"]])
def test_shells_can_complete_commands_and_options(given, home, capsys):
    assert ended(*given) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("steer", "scribble", "step-size", "install-completion"))


@pytest.mark.parametrize("shell", ["zebra", ""])
def test_a_shell_that_is_not_known_is_refused(shell, home, capsys):
    assert ended("--show-completion", shell) == 2
    assert f"must be bash, zsh, fish, tcsh or powershell; got {shell!r}" in capsys.readouterr().err
    assert ended("--install-completion", shell) == 2
    assert f"must be bash, zsh or fish; got {shell!r}" in capsys.readouterr().err
    assert list(home.iterdir()) == []


TYPED = {
    "ste": "steer",
    "--inst": "--install-completion",
    "records me": "merge",
    "steer a.png b --scr": "--scribble",
    "steer a.png b --method key": "key-steering",
    "steer a.png b --update ad": "adam",
    "steer a.png b --mask pict": "picture.png",
    "steer pict": "picture.png",
    "eval set --methods unsteered --scorer str": "strict",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_after_the_installation(home, capsys):
    """Asked as bash asks it after the key; once more changes nothing, and what the user wrote stays."""
    start = home / ".bashrc"
    start.write_text("answer=42  # without an end of line")
    for _ in range(2):
        assert ended("--install-completion") == 0
        script, read = re.findall(r"^written   (.*)$", capsys.readouterr().out, re.M)
        assert (Path(script).is_file(), Path(read)) == (True, start)
    lines = start.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("answer=42")
    (home / "picture.png").touch()
    asked = [
        f"COMP_WORDS=(cmllm {words}); COMP_CWORD={len(words.split())}; _shtab_cmllm; echo $COMPREPLY" for words in TYPED
    ]
    bash = ["bash", "--norc", "-c", "\n".join([f". {start}", *asked])]
    done = subprocess.run(bash, capture_output=True, text=True, check=True, cwd=home)
    assert dict(zip(TYPED, done.stdout.splitlines(), strict=True)) == TYPED


@pytest.mark.parametrize(
    "shell, script, start", [("zsh", ".zfunc/_cmllm", ".zshrc"), ("fish", ".config/fish/completions/cmllm.fish", None)]
)
def test_completion_lies_where_the_shell_looks(shell, script, start, home):
    assert ended("--install-completion", shell) == 0
    assert "steer" in (home / script).read_text()
    assert start is None or ".zfunc" in (home / start).read_text()
    assert len([path for path in home.rglob("*") if path.is_file()]) == (1 if start is None else 2)


def test_completion_that_cannot_be_installed_is_said(home, capsys):
    (home / ".bashrc").mkdir()
    assert main(["--install-completion"]) == 2
    assert "cmllm: " in capsys.readouterr().err


def test_the_package_loads_nothing_heavy():
    assert run(f"import cmllm_tools as cm; cm.__version__, dir(cm), cm.CmllmError\n{LOADED}") == ["[]"]


@pytest.mark.slow
def test_every_public_name_can_be_had():
    code = "from cmllm_tools import *\nimport cmllm_tools as c\n"
    code += "print([n for n in c.__all__ if globals()[n] is not getattr(c, n)])"
    assert run(code) == ["[]"]
    for name in cm.__all__:
        assert getattr(cm, name) is not None
    assert {*cm.__all__, "analysis", "widgets", "__version__"} <= set(dir(cm))
    with pytest.raises(AttributeError, match="module 'cmllm_tools' has no attribute 'zebra'"):
        cm.zebra  # noqa: B018


def test_type_checkers_are_told_what_is_there():
    """The names that load with their first use are those of the imports under TYPE_CHECKING, from the same modules."""
    (block,) = (node for node in ast.parse(Path(cm.__file__).read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert {name: f"{told.pop(name) or ''}.{name}".lstrip(".") for name in cm._ROOMS} == cm._ROOMS
    assert told == cm._HOME
    assert set(cm.__all__) == {*cm._HOME, "causes", "figures", "methods"}


def test_no_function_is_named_like_a_module():
    """Importing the module would put it in the function's place."""
    assert not {path.stem for path in Path(cm.__file__).parent.iterdir()} & set(cm._HOME)


def test_commands_are_listed_as_they_are_run(capsys):
    for command, (_, summary) in COMMANDS.items():
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        assert f"usage: cmllm {command} [OPTIONS]" in capsys.readouterr().out
        assert summary
    with pytest.raises(SystemExit):
        main(["zebra"])
    assert "invalid choice: 'zebra'" in capsys.readouterr().err


def test_an_error_stands_below_a_short_usage(capsys, monkeypatch):
    """It says what must be given; the help tells the rest, in groups."""
    monkeypatch.setenv("COLUMNS", "80")
    assert ended("steer", "a.png", "q", "--n") == 2
    *usage, error = capsys.readouterr().err.splitlines()
    assert " ".join(" ".join(usage).split()).startswith("usage: cmllm steer [OPTIONS] (--box X0 Y0 X1 Y1 | --mask FILE")
    assert len(usage) <= 3
    assert error.startswith("cmllm steer: error: ")
    assert ended("steer", "--help") == 0
    groups = re.findall(r"^(\S.*):$", capsys.readouterr().out, re.M)
    assert groups == ["positional arguments", "options", "region", "settings of the methods", "model"]
    assert ended("data", "check", "--help") == 0
    assert capsys.readouterr().out.startswith("usage: cmllm data check [OPTIONS] FOLDER")
