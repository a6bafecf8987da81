"""Check the built site: every link and anchor leads somewhere, nothing is loaded from another host, search has its index.

    python docs/check.py build/site

Strict MkDocs checks what is written as Markdown; this looks at what a browser is given, outputs of lessons too.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

# What a browser loads by itself, and where it says so.
LOADED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("object", "data"),
    ("link", "href"),
}


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        # A canonical link is a name, and loads nothing.
        if given.get("rel") not in ("canonical", "next", "prev"):
            self.loads += [given[name] for kind, name in LOADED if kind == tag and name in given]


def faults(site: Path) -> Iterator[str]:
    """What is wrong, a line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        for link in {*page.links, *page.loads}:
            parts = urlparse(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{where}: loads {link}"
                continue
            file, anchor = urldefrag(link)
            # The page that is shown where a server finds none has links from the top.
            if path.name == "404.html":
                continue
            target = (path.parent / unquote(file)).resolve() if file else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{where}: {link} leads nowhere"
            elif anchor and target in pages and unquote(anchor) not in pages[target].places:
                yield f"{where}: {link} has no such place"
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        yield from (
            f"{style.relative_to(site)}: loads from {host}"
            for host in ("http://", "https://", "//fonts")
            if f"url({host}" in text
        )
    if not (site / "search/search_index.js").is_file():
        yield "search has no index that can be read from disk"


def main(site: Path) -> int:
    found = list(faults(site))
    print(
        "\n".join(found)
        if found
        else f"{len(list(site.rglob('*.html')))} pages: links, anchors and what they load are right"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
