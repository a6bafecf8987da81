"""Write the site's pages into build/pages, and build/mkdocs.yml with their order: `make docs`.

Pages stand in docs/ as people read them beside the code; here they are given their places in the site, and links that
lead out of docs/ are led to where the site has the same, or become plain text.
"""

import re
import shutil
import sys
from pathlib import Path

import lessons
import reference
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUT = ROOT / "build/pages"
# First pages, and what stands for them in the repository.
FIRST = {
    ROOT / "README.md": "index.md",
    DOCS / "start.md": "index.md",
    DOCS / "design/README.md": "design/index.md",
    DOCS / "howto/README.md": "howto/index.md",
}
# Section -> title -> page in docs/, or beside it.
SECTIONS = {
    "The method": {
        "The method": "method.md",
        "What the published code does": "published.md",
        "Ways of referring": "methods.md",
        "Evaluating": "evaluating.md",
    },
    "Findings": {
        "Findings": "findings.md",
        "The embedded model": "../cmllm_tools/embedded/MODEL_CARD.md",
        "smol": "../cmllm_tools/smol/MODEL_CARD.md",
    },
    "Performance": {"Performance": "performance.md"},
    "Families": {"Families": "families.md"},
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def place(source: Path) -> str | None:
    """Where the site has a file of the repository; None where it has not."""
    inside = source.resolve()
    if not inside.is_relative_to(ROOT):
        return None
    if inside.suffix == ".ipynb":
        return f"lessons/{inside.stem}.md"
    if inside.name == "MODEL_CARD.md":
        return f"{inside.parent.name}.md"
    if inside in FIRST:
        return FIRST[inside]
    if inside.is_relative_to(DOCS) and inside.suffix in (".md", ".png", ".svg"):
        return inside.relative_to(DOCS).as_posix()
    return f"{inside.stem.lower()}.md" if inside.parent == ROOT and inside.suffix == ".md" else None


def linked(text: str, source: Path, target: str) -> str:
    """The text with its links led to where the site has what they lead to."""

    def lead(match: re.Match[str]) -> str:
        picture, words, link = match.groups()
        file, _, anchor = link.partition("#")
        if not file or re.match(r"[a-z]+:", link):
            return match[0]
        found = place(source.parent / file)
        if found is None:
            return words
        up = "../" * target.count("/")
        return f"{picture}[{words}]({up}{found}{'#' + anchor if anchor else ''})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    return "".join(part if number % 2 else LINK.sub(lead, part) for number, part in enumerate(parts))


def write(target: str, text: str) -> str:
    path = OUT / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return target


def copied(source: Path) -> str:
    """The page of a file, written; returns its place."""
    target = place(source)
    if target is None:
        raise SystemExit(f"docs/pages.py: {source} has no place in the site.")
    return write(target, linked(source.read_text(encoding="utf-8"), source, target))


def heading(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def folder(name: str) -> list[object]:
    """A folder of docs/: its README first, then its pages in the order that the README links to them."""
    home = ROOT / "docs" / name / "README.md"
    order = list(dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)", home.read_text(encoding="utf-8"))))
    if left := {path.name for path in home.parent.glob("*.md")} - {*order, "README.md"}:
        raise SystemExit(f"docs/{name}/README.md: links to every page but {', '.join(sorted(left))}.")
    return [copied(home), *({heading(home.parent / each): copied(home.parent / each)} for each in order)]


def taught() -> list[object]:
    """The lessons' first page, and each lesson with what it gave."""
    (OUT / "lessons").mkdir()
    found: list[object] = [copied(DOCS / "lessons.md")]
    for name, notebook in lessons.executed().items():
        text, target = lessons.page(name, notebook, OUT / "lessons"), f"lessons/{name}.md"
        found.append({lessons.title(notebook): write(target, linked(text, ROOT / f"notebooks/{name}.ipynb", target))})
    return found


def main(with_lessons: bool = True) -> None:
    """Write everything; lessons are left out of a quick look."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(DOCS / "assets", OUT / "assets")
    shutil.copy(DOCS / "picture.png", OUT)
    shutil.copytree(DOCS / "gallery", OUT / "gallery")
    order: dict[str, object] = {"Start": copied(DOCS / "start.md")}
    if with_lessons:
        order["Lessons"] = taught()
    order["Gallery"] = copied(DOCS / "gallery.md")
    order["How to"] = [*folder("howto"), {"Where the widgets work": copied(DOCS / "fronts.md")}]
    named = [{title: write(f"reference/{page}.md", text)} for page, title, text in reference.pages()]
    order["Reference"] = [write("reference/index.md", reference.index()), *named]
    for section, pages in SECTIONS.items():
        found = {title: copied(DOCS / page) for title, page in pages.items()}
        order[section] = [{title: page} for title, page in found.items()] if len(found) > 1 else found[section]
    more = {"Contributing": copied(ROOT / "CONTRIBUTING.md")}, {"Changelog": copied(ROOT / "CHANGELOG.md")}
    order["Design"] = [*folder("design"), *more]
    nav = [{section: pages} for section, pages in order.items()]
    settings = {"INHERIT": "../mkdocs.yml", "docs_dir": "pages", "site_dir": "site", "nav": nav}
    (ROOT / "build/mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main("--without-lessons" not in sys.argv)
