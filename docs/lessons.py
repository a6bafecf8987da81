"""Run the lessons and write them as pages, with their outputs. Used by `docs/pages.py`.

A lesson is run once: what it gave is kept in build/lessons until the lesson or the package changes.
"""

import base64
import hashlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from cmllm_tools.files import write_whole

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNS = ROOT / "build/lessons"
# Seconds after which a cell hangs: a lesson of a minute may take many on a busy machine.
HANGS = 15 * 60


def executed() -> dict[str, nbformat.NotebookNode]:
    """Each lesson with its outputs, by its name; two at a time are run, each in a kernel of its own."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((path.stem for path in NOTEBOOKS), pool.map(_run, NOTEBOOKS), strict=True))


def _run(path: Path) -> nbformat.NotebookNode:
    kept = RUNS / f"{path.stem}-{_digest(path)}.ipynb"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            run(path, Path(folder))
        print(f"ran {path.name}", flush=True)
    return nbformat.read(kept, as_version=4)


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a lesson in a folder and keep what it gave, for the site; `make test` does so too."""
    notebook = nbformat.read(path, as_version=4)
    # What stands beside the lessons is found by them, in JupyterLab as here.
    paths = [str(path.parent), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env=environment)
    RUNS.mkdir(parents=True, exist_ok=True)
    kept = RUNS / f"{path.stem}-{_digest(path)}.ipynb"
    write_whole(kept, lambda file: file.write(nbformat.writes(notebook).encode()))
    for old in set(RUNS.glob(f"{path.stem}-*.ipynb")) - {kept}:
        old.unlink()
    return notebook


def _digest(path: Path) -> str:
    """Of the lesson and of all that it can import."""
    digest = hashlib.sha256(path.read_bytes())
    for source in sorted([*(ROOT / "cmllm_tools").rglob("*"), *path.parent.glob("*.py")]):
        if source.is_file() and "__pycache__" not in source.parts:
            digest.update(str(source.relative_to(ROOT)).encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def title(notebook: nbformat.NotebookNode) -> str:
    """What the lesson's first line says."""
    return str(notebook.cells[0].source.splitlines()[0].lstrip("# "))


def page(name: str, notebook: nbformat.NotebookNode, folder: Path) -> str:
    """The lesson as Markdown; its pictures are written into the folder."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(_formulas(cell.source))
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_output(output, f"{name}-{number}-{at}", folder) for at, output in enumerate(_joined(cell.outputs))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs, with what was printed in pieces put together, as a bar is."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = found[-1] if found else None
        if output.output_type == "stream" and before is not None and before.get("name") == output.name:
            before.text += output.text
        else:
            found.append(nbformat.from_dict(dict(output)))
    return found


def _formulas(text: str) -> str:
    """Markdown with its formulas as MathML, which a browser sets without a script of another host."""
    # Needed by the site alone: tests run the lessons without it.
    from latex2mathml.converter import convert

    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"\$\$(.+?)\$\$", lambda found: convert(found[1], display="block"), parts[at], flags=re.S)
        parts[at] = re.sub(r"\$([^$\n]+)\$", lambda found: convert(found[1]), parts[at])
    return "".join(parts)


def _output(output: nbformat.NotebookNode, name: str, folder: Path) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data:
        return _text("A widget: it is drawn by `make lab`, and by a notebook that is saved with it.")
    if html := "".join(data.get("text/html", "")):
        return _block("html", _safe(html))
    for kind, suffix in (("image/png", "png"), ("image/jpeg", "jpg")):
        if kind in data:
            (folder / f"{name}.{suffix}").write_bytes(base64.b64decode(data[kind]))
            return f"![]({name}.{suffix})"
    if "text/markdown" in data:
        return str(data["text/markdown"])
    return _text("".join(data.get("text/plain", "")))


def _safe(html: str) -> str:
    """Without scripts, and on one line: a blank one would end the HTML for Markdown."""
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.S | re.I)
    html = re.sub(r"(<(pre|textarea)\b.*?</\2>)", lambda block: block[1].replace("\n", "&#10;"), html, flags=re.S | re.I)
    return re.sub(r"\s*\n\s*", " ", html).strip()


def _text(text: str) -> str:
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    # A bar that is drawn again and again is shown as it ended.
    said = "\n".join(line.rsplit("\r", 1)[-1] for line in said.rstrip().split("\n"))
    return _block("text", f"<pre>{escape(said).replace(chr(10), '&#10;')}</pre>") if said.strip() else ""


def _block(kind: str, html: str) -> str:
    return f'<div class="cell-output {kind}">{html}</div>' if html else ""
