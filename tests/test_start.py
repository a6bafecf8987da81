"""What starting costs: the package and its command line load nothing heavy before something needs it."""

import ast
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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("steer", "scribble", "step-size", "print-completion"))


def test_a_shell_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--print-completion", "zebra"])
    assert "must be bash, zsh, fish, tcsh or powershell; got 'zebra'" in capsys.readouterr().err


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
        assert f"usage: cmllm {command} [-h]" in capsys.readouterr().out
        assert summary
    with pytest.raises(SystemExit):
        main(["zebra"])
    assert "invalid choice: 'zebra'" in capsys.readouterr().err
