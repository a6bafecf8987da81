"""How the package is had: a wheel in a fresh environment, pins, conda, Docker."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from lowest_versions import lowest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split())
# Weights of the embedded model, of its twin without marks and of smol's eyes, 18 MB that cannot be packed closer, and both
# held-out sets, 6.1 MB.
MOST = 26_000_000
BUILT = "from setuptools import build_meta as b; print(b.build_{kind}({folder!r}))"


def same(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist, of the tracked files alone."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = ["git", "ls-files", "-z", "cmllm_tools", "*.md", "*.toml", "LICENSE"]
    listed = subprocess.run(tracked, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    for kind in ("wheel", "sdist"):
        code = BUILT.format(kind=kind, folder=str(folder))
        subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < MOST
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cmllm_tools"}
    listed = subprocess.run(["git", "ls-files", "cmllm_tools"], cwd=ROOT, capture_output=True, text=True, check=True)
    inside = {name for name in names if "dist-info" not in name}
    assert inside <= set(listed.stdout.split("\n"))
    assert {"cmllm_tools/py.typed", "cmllm_tools/sources.bib", "cmllm_tools/embedded/model/model.safetensors"} <= inside
    assert {Path(name).suffix for name in inside} <= {
        ".py", ".typed", ".bib", ".md", ".json", ".jinja", ".safetensors", ".png", ".webp", ".js", ".css", ".html",
    }  # fmt: skip


@pytest.mark.slow
def test_the_sdist_makes_the_same_package(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    (wheel,) = built.glob("*.whl")
    assert {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name} <= names


@pytest.mark.slow
def test_the_wheel_runs_in_a_fresh_environment_without_the_notebook(built, tmp_path):
    """Beside the libraries that are at hand, so that nothing is asked of a network."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (wheel,) = built.glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
    ]
    subprocess.run([*install, wheel], check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    without = (
        "import sys; sys.modules.update(dict.fromkeys(['anywidget', 'ipywidgets', 'jupyterlab', 'matplotlib', 'pandas']))\n"
    )
    code = (
        f"{without}import cmllm_tools as cm; print(cm.__file__); print(cm.load().layers); cm.figures.curves({{}}, 'x', 'y')"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    where, layers = done.stdout.split()
    assert where.startswith(str(site))
    assert layers == "6"
    command = [tmp_path / "venv/bin/cmllm", "demo", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "red cross" in done.stdout
    assert any((tmp_path / "out").iterdir())


def requirements():
    yield from PROJECT["dependencies"]
    for lines in PROJECT["optional-dependencies"].values():
        yield from (line for line in lines if not line.startswith("cmllm_tools"))


def test_what_is_pinned_is_allowed():
    """Not of Ray and PyAV: the tests have each in a folder of its own, in the version that the Makefile names."""
    pins = {same(name): version for name, version in PINS.items()}
    for line in requirements():
        requirement = Requirement(line)
        if requirement.name not in ("ray", "av"):
            assert same(requirement.name) in pins, line
            assert pins[same(requirement.name)] in requirement.specifier, line


def test_the_lowest_versions_are_those_of_the_core():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert {line.split("==")[0] for line in lowest()} == names


def test_conda_has_the_same_pins_and_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    (python,) = (part for part in environment["dependencies"] if str(part).startswith("python="))
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert "-c constraints.txt" in pip
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    (setup,) = (step["with"] for step in workflow["jobs"]["test"]["steps"] if "setup-python" in step.get("uses", ""))
    assert python == f"python={setup['python-version']}"
    assert f"FROM python:{setup['python-version']}-slim" in (ROOT / "Dockerfile").read_text("utf-8")


def test_what_the_image_copies_is_there():
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY"):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), line
