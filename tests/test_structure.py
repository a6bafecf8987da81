"""The rules of the house that no linter knows: the package loads light, and no module grows past what one can read."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cmllm_tools

PACKAGE = Path(cmllm_tools.__file__).parent


@pytest.mark.slow
def test_import_is_light():
    code = (
        "import sys, cmllm_tools as cm\n"
        "[getattr(cm, name) for name in cm.__all__]\n"
        "heavy = {'plotly', 'ipywidgets', 'anywidget', 'captum', 'jupyterlab', 'IPython', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_files_stay_readable():
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert max(sizes.values()) <= 350, sizes


def test_modules_and_style_sheets_of_the_widgets_stay_readable():
    for path in [*PACKAGE.rglob("*.js"), *PACKAGE.rglob("*.css")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 350, path
        assert max(map(len, lines)) <= 124, path


def test_nothing_model_specific_outside_models_and_layout():
    names = ("llava", "qwen", "clip_", "internvl", "gemma", "idefics")
    for path in PACKAGE.rglob("*.py"):
        # The published settings of the methods are given for models by name.
        if path.relative_to(PACKAGE).parts[0] in ("models", "layout") or path == PACKAGE / "referring" / "defaults.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        code = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        # Sentences may name a family; what code compares with has no spaces.
        found = [text for text in code if " " not in text and any(name in text.lower() for name in names)]
        assert not found, (path.name, found)


def test_values_know_no_html():
    """How they look is known in `show` alone; that none imports it follows from the order of the rooms."""
    around = re.compile(r"_repr_html_|markupsafe|Markup\b|</?(div|table|t[rdh]|br)\b|\.show\b")
    for room in ("inputs", "layout", "models", "attention", "referring", "analysis"):
        for path in (PACKAGE / room).rglob("*.py"):
            assert not around.search(path.read_text(encoding="utf-8")), path


def test_files_are_written_in_one_place():
    """By `files.write_whole`, so that none is left half written; models are exported by transformers."""
    around = re.compile(r"""\.write_(text|bytes)\(|save_file\(|open\([^)\n]*["'][wax]b?\+?["']""")
    for path in PACKAGE.rglob("*.py"):
        found = around.findall(path.read_text(encoding="utf-8"))
        assert not found or path.name == "files.py", path


def test_no_pickle():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "torch.load" not in text
        assert "torch.save" not in text
        assert "allow_pickle=True" not in text


def test_no_tests_picture_depends_on_the_tests_before_it():
    """Pillow draws its noise with C's `rand`, from wherever that stands; `tests_support.noise` is always the same."""
    for path in Path(__file__).parent.rglob("*.py"):
        assert not re.search(r"effect_noise\(", path.read_text(encoding="utf-8")), path
