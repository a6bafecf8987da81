"""Three drawings of each thing, as transparent pictures of 128 x 128 px: `python -m training.smol.pictures FOLDER`.

They come from npm's registry, whose archives are checked by hash: Noto Emoji (Google, Apache 2.0) and Twemoji (Twitter and
others, CC BY 4.0) as drawings that Chromium renders, Fluent Emoji 3D (Microsoft, MIT) as pictures.
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


def _drawn(archive: tarfile.TarFile) -> Callable[[str, Any], Image.Image]:
    """Pictures of an icon set, each rendered by Chromium."""
    names = {code.lower(): name for code, name in json.loads(_member(archive, "chars.json")).items()}
    icons = json.loads(_member(archive, "icons.json"))
    width, height = icons.get("width", 16), icons.get("height", 16)

    def picture(code: str, page: Any) -> Image.Image:
        icon = icons["icons"][names.get(code.lower()) or names[code.lower().replace("-fe0f", "")]]
        size = f'viewBox="0 0 {icon.get("width", width)} {icon.get("height", height)}" width="{SIDE}" height="{SIDE}"'
        page.set_content(
            f'<body style="margin: 0"><svg xmlns="http://www.w3.org/2000/svg" style="display: block" {size}>'
            f"{icon['body']}</svg></body>"
        )
        return Image.open(io.BytesIO(page.screenshot(omit_background=True)))

    return picture


def _painted(archive: tarfile.TarFile) -> Callable[[str, Any], Image.Image]:
    known = set(archive.getnames())

    def picture(code: str, page: Any) -> Image.Image:
        names = (code.lower(), code.lower().replace("-fe0f", ""), f"{code.lower()}-fe0f")
        name = next(f"assets/{name}.webp" for name in names if f"package/assets/{name}.webp" in known)
        return Image.open(io.BytesIO(_member(archive, name))).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    return picture


def make_pictures(file: Path) -> None:
    """Fetch and render all styles into one file."""
    codes = [code for each in things().values() for code in each]
    found = {}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=which("chromium"))
        page = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        for style, source in STYLES.items():
            archive = _fetch(source)
            picture = (_painted if style == "fluent" else _drawn)(archive)
            all_of_it = [np.asarray(picture(code, page).convert("RGBA")) for code in tqdm(codes, style)]
            found[style] = np.ascontiguousarray(np.stack(all_of_it).transpose(0, 3, 1, 2))
        browser.close()
    write_whole(file, lambda output: output.write(save(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the pictures are written, as safetensors")
    make_pictures(parser.parse_args().file)


if __name__ == "__main__":
    main()
