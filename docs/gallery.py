"""What the gallery shows, read from docs/gallery.md: the lines of each figure and widget, and what they give.

    make gallery

draws all of them in a browser (`tests/browser`, which also holds that no words overlap) and, by `main` here, takes the
pictures over into docs/gallery. They are committed, so that the page is read on GitHub and `make docs` needs no browser.
"""

import ast
import re
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cmllm_tools.files import write_whole

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/gallery.md"
PICTURES = ROOT / "docs/gallery"
DRAWN = ROOT / "test-output/gallery"
# Of all pictures together, in bytes: the repository stays light.
LARGEST = 1_500_000
# Enough for a map's colours on a photograph, at a third of the bytes.
COLORS = 128
# In each picture: what its lines were.
KEY = "lines"
SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.M | re.S)
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def first_lines() -> str:
    """What all sections start from."""
    found = CODE.search(PAGE.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit("docs/gallery.md: begins with the lines that all sections start from.")
    return found[1]


def entries() -> dict[str, str]:
    """The lines of each figure and widget, by its name, in the order of the page."""
    found = {}
    for name, text in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        code = CODE.search(text)
        if code is None or f"![{name}](gallery/{name}.png)" not in text:
            raise SystemExit(f"docs/gallery.md: section {name} must have its lines and ![{name}](gallery/{name}.png).")
        found[name] = code[1]
    return found


def made(names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each figure and widget, by its name: what the last line of its section is.

    Args:
        names: of the lines' own; empty at first.
    """
    exec(compile(first_lines(), PAGE.name, "exec"), names)  # noqa: S102
    for name, lines in entries().items():
        *before, last = ast.parse(lines).body
        if not isinstance(last, ast.Expr):
            raise SystemExit(f"docs/gallery.md: the last line of section {name} must be the figure or widget itself.")
        exec(compile(ast.Module(before, []), PAGE.name, "exec"), names)  # noqa: S102
        yield name, eval(compile(ast.Expression(last.value), PAGE.name, "eval"), names)  # noqa: S307


def digest(lines: str) -> str:
    """What a picture says of the lines that it was made by."""
    return sha256((first_lines() + lines).encode()).hexdigest()[:16]


def main() -> None:
    """Take over what the browser drew, in few colours; pictures without a section go."""
    found = entries()
    for name, lines in found.items():
        about, packed = PngInfo(), BytesIO()
        about.add_text(KEY, digest(lines))
        with Image.open(DRAWN / f"{name}.png") as picture:
            few = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(packed, "PNG", optimize=True, pnginfo=about)
        data = packed.getvalue()
        write_whole(PICTURES / f"{name}.png", lambda file, data=data: file.write(data))
    for path in set(PICTURES.glob("*.png")) - {PICTURES / f"{name}.png" for name in found}:
        path.unlink()
    size = sum(path.stat().st_size for path in PICTURES.glob("*.png"))
    print(f"{len(found)} pictures in docs/gallery, {size / 1e6:.2f} MB together")


if __name__ == "__main__":
    main()
