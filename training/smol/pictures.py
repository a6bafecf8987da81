"""Drawings of each thing in many styles, as transparent pictures of 128 x 128 px: `python -m training.smol.pictures FILE`.

They come from npm's registry, whose archives are checked by hash; what is drawn in lines is rendered by Chromium. What a
style has no drawing of is left transparent.
"""

import argparse
import base64
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
        otherwise: of icons that go by a name, and stand for no code point, those that show something else than the thing of
            that name; None for pictures that go by code points.
    """

    archive: str
    sha256: str
    licence: str
    otherwise: str | None = None


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
    "fluent-color": Source(
        "@iconify-json/fluent-emoji/-/fluent-emoji-1.2.7.tgz",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "Fluent Emoji, Microsoft, MIT",
    ),
    "noto-lines": Source(
        "@fontsource/noto-emoji/-/noto-emoji-5.3.2.tgz",
        "1fe49bb2cf7c2d78f93c0a69b6a431dcfd0d585b7831eba87fae6888ccf8d373",
        "Noto Emoji, the font, Google, OFL 1.1",
    ),
    "streamline": Source(
        "@iconify-json/streamline-emojis/-/streamline-emojis-1.2.4.tgz",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "Streamline Emojis, Streamline, CC BY 4.0",
    ),
    "material": Source(
        "@iconify-json/mdi/-/mdi-1.2.3.tgz",
        "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac",
        "Material Design Icons, Pictogrammers, Apache 2.0",
        "arrow bee box brush coat elevator flower hospital hotel lightning mouse nest painting pepper plant planet ring "
        "satellite school seal soup speaker tent train turkey",
    ),
    "game": Source(
        "@iconify-json/game-icons/-/game-icons-1.2.4.tgz",
        "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
        "Game-icons.net, Lorc, Delapouite and others, CC BY 3.0",
        "bridge bulb clover fire fountain helmet lantern meat oyster ring speaker volcano wrench",
    ),
    "huge": Source(
        "@iconify-json/hugeicons/-/hugeicons-1.2.35.tgz",
        "cca09de913319938961fa0613a8eb42952f76c3ee13a7c68ef411091590c5d8b",
        "Huge Icons, MIT",
        "diamond glove keyboard lock mouse rat satellite seal shell snail speaker sunglasses thermometer",
    ),
    "park": Source(
        "@iconify-json/icon-park/-/icon-park-1.2.4.tgz",
        "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f",
        "IconPark, ByteDance, Apache 2.0",
        "anchor bank chicken compass eagle egg fork glove helmet honey keyboard mirror mouse pie ring seal spoon speaker "
        "telescope trumpet turkey",
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
        return _shot(page, f'<svg xmlns="http://www.w3.org/2000/svg" style="display: block" {size}>{icon["body"]}</svg>')

    return picture


def _written(archive: tarfile.TarFile) -> Picture:
    """Pictures of a font, each rendered by Chromium."""
    font = base64.b64encode(_member(archive, "files/noto-emoji-emoji-400-normal.woff2")).decode()
    face = f"@font-face {{ font-family: drawn; src: url(data:font/woff2;base64,{font}) }}"
    style = f"font: {0.8 * SIDE}px drawn; width: {SIDE}px; line-height: {SIDE}px; text-align: center"

    def picture(code: str, page: Any) -> Image.Image | None:
        letters = "".join(f"&#x{each};" for each in code.split("-"))
        return _shot(page, f'<style>{face}</style><div style="{style}">{letters}</div>')

    return picture


def _shot(page: Any, body: str) -> Image.Image:
    page.set_content(f'<body style="margin: 0">{body}</body>')
    page.evaluate("document.fonts.ready")
    return Image.open(io.BytesIO(page.screenshot(omit_background=True)))


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


def _own_names(otherwise: str) -> Names:
    """How sets of icons call a thing: by its name, or as the first of several of that name."""
    first = {codes[0]: name for name, codes in things().items() if name not in otherwise.split()}

    def known(code: str) -> list[str]:
        name = first.get(code)
        return [] if name is None else [name, f"{name}-01", f"{name}-one"]

    return known


def _pictures_of(style: str, archive: tarfile.TarFile, known: Names) -> Picture:
    if style == "fluent":
        return _painted(archive)
    if style == "noto-lines":
        return _written(archive)
    otherwise = STYLES[style].otherwise
    return _drawn(archive, known if otherwise is None else _own_names(otherwise))


def make_pictures(file: Path) -> None:
    """Fetch and render all styles into one file."""
    codes = [code for each in things().values() for code in each]
    archives = {style: _fetch(source) for style, source in STYLES.items()}
    known, found = _names(archives), {}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=which("chromium"))
        page = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        for style, archive in archives.items():
            picture, rows = _pictures_of(style, archive, known), np.zeros((len(codes), 4, SIDE, SIDE), np.uint8)
            for row, code in zip(rows, tqdm(codes, style), strict=True):
                one = picture(code, page)
                if one is not None:
                    row[:] = np.asarray(one.convert("RGBA")).transpose(2, 0, 1)
            found[style] = rows
        browser.close()
    write_whole(file, lambda output: output.write(save(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the pictures are written, as safetensors")
    make_pictures(parser.parse_args().file)


if __name__ == "__main__":
    main()
