"""Drawings of each thing in eight styles, as transparent pictures of 128 x 128 px: `python -m training.smol.pictures FILE`.

They come from npm's registry, whose archives are checked by hash; what is drawn in lines is rendered by Chromium. Older
styles lack some things: their place holds the first style's drawing.
"""

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from safetensors.numpy import save
from tqdm.auto import tqdm

from cmllm_tools.files import write_whole

from .world import things

SIDE = 128
REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class Source:
    """One drawing style.

    Args:
        archive: below the registry.
        sha256: of the archive.
        licence: of the pictures, and whose they are.
    """

    archive: str
    sha256: str
    licence: str


# Pictures that stand for a code point, drawn by a page; None where the style has none.
Picture = Callable[[str, Any], Image.Image | None]
# What a code point is called.
Names = Callable[[str], list[str]]

STYLES = {
    "noto": Source(
        "@iconify-json/noto/-/noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Noto Emoji, Google, Apache 2.0",
    ),
    "fluent": Source(
        "@lobehub/fluent-emoji-3d/-/fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "Fluent Emoji, Microsoft, MIT",
    ),
    "fluent-flat": Source(
        "@iconify-json/fluent-emoji-flat/-/fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "Fluent Emoji, Microsoft, MIT",
    ),
    "fluent-contrast": Source(
        "@iconify-json/fluent-emoji-high-contrast/-/fluent-emoji-high-contrast-1.2.6.tgz",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        "Fluent Emoji, Microsoft, MIT",
    ),
    "noto-v1": Source(
        "@iconify-json/noto-v1/-/noto-v1-1.2.5.tgz",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Noto Emoji before 2017, Google, Apache 2.0",
    ),
    "emojione": Source(
        "@iconify-json/emojione/-/emojione-1.2.3.tgz",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "EmojiOne 2, Emoji One, CC BY 4.0",
    ),
    "firefox": Source(
        "@iconify-json/fxemoji/-/fxemoji-1.2.2.tgz",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Firefox OS Emoji, Mozilla, Apache 2.0",
    ),
    "twemoji": Source(
        "@iconify-json/twemoji/-/twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "Twemoji, Twitter and other contributors, CC BY 4.0",
    ),
}


def _fetch(source: Source) -> tarfile.TarFile:
    found = httpx.get(f"{REGISTRY}/{source.archive}", timeout=60).raise_for_status().content
    if hashlib.sha256(found).hexdigest() != source.sha256:
        raise SystemExit(f"{source.archive} must have the SHA-256 {source.sha256}; the registry sent another file.")
    return tarfile.open(fileobj=io.BytesIO(found))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/{name}")
    if file is None:
        raise SystemExit(f"{name} must be a file of the archive.")
    return file.read()


def _drawn(archive: tarfile.TarFile, known: Names) -> Picture:
    """Pictures of an icon set, each rendered by Chromium; None for a thing that the set lacks."""
    icons = json.loads(_member(archive, "icons.json"))
    width, height = icons.get("width", 16), icons.get("height", 16)
    spelled = {name.replace("-", ""): name for name in icons["icons"]}

    def picture(code: str, page: Any) -> Image.Image | None:
        names = (spelled.get(name.replace("-", "")) for name in known(code))
        found = next((name for name in names if name), None)
        if found is None:
            return None
        icon = icons["icons"][found]
        size = f'viewBox="0 0 {icon.get("width", width)} {icon.get("height", height)}" width="{SIDE}" height="{SIDE}"'
        page.set_content(
            f'<body style="margin: 0"><svg xmlns="http://www.w3.org/2000/svg" style="display: block" {size}>'
            f"{icon['body']}</svg></body>"
        )
        return Image.open(io.BytesIO(page.screenshot(omit_background=True)))

    return picture


def _painted(archive: tarfile.TarFile) -> Picture:
    known = set(archive.getnames())

    def picture(code: str, page: Any) -> Image.Image | None:
        names = (code.lower(), code.lower().replace("-fe0f", ""), f"{code.lower()}-fe0f")
        name = next(f"assets/{name}.webp" for name in names if f"package/assets/{name}.webp" in known)
        return Image.open(io.BytesIO(_member(archive, name))).resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    return picture


def _names(archives: dict[str, tarfile.TarFile]) -> Names:
    """How the sets that list code points call what each one shows: the sets that do not go by such names."""
    lists = [
        {code.lower(): name for code, name in json.loads(_member(archive, "chars.json")).items()}
        for archive in archives.values()
        if "package/chars.json" in archive.getnames()
    ]

    def known(code: str) -> list[str]:
        found = (names.get(code.lower()) or names.get(code.lower().replace("-fe0f", "")) for names in lists)
        return [name for name in found if name]

    return known


def make_pictures(file: Path) -> None:
    """Fetch and render all styles into one file."""
    codes = [code for each in things().values() for code in each]
    archives = {style: _fetch(source) for style, source in STYLES.items()}
    known, first = _names(archives), next(iter(STYLES))
    found: dict[str, np.ndarray] = {}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=which("chromium"))
        page = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        for style, archive in archives.items():
            picture = _painted(archive) if style == "fluent" else _drawn(archive, known)
            rows = []
            for at, code in enumerate(tqdm(codes, style)):
                one = picture(code, page)
                rows.append(found[first][at] if one is None else np.asarray(one.convert("RGBA")).transpose(2, 0, 1))
            found[style] = np.ascontiguousarray(np.stack(rows))
        browser.close()
    write_whole(file, lambda output: output.write(save(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the pictures are written, as safetensors")
    make_pictures(parser.parse_args().file)


if __name__ == "__main__":
    main()
