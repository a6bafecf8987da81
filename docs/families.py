"""Write the table of families into docs/families.md and, by way in, into the README: `make families`."""

import re
from pathlib import Path

from cmllm_tools.cli.families import families_markdown
from cmllm_tools.models.lookup import family_rows

ROOT = Path(__file__).parents[1]
HEAD = """# Families of models

Made from the family table by `make families`. "tested": the family passes every check of the conformance suite
(`tests/test_families.py`) on a small random model loaded by `from_pretrained`: captured attention equals eager attention,
the replayed call gives the model's own logits, boxes equal those found by probing, and more. "key_steering": that method
moves the keys of the image, as cached, or where they stand beside the text's sequence. "several_images": a
conversation may show more than one, each laid out by itself, which the suite tries with two images, three turns and a
system prompt. "video": frames are laid out in space and time, which equals what probing finds
(`tests/test_video_families.py`). "causes": knockout, ablation, patching, lens, token activation maps and Grad-CAM, each
held against a plain version in the suite; what is left out there is refused by name, which the suite tries too. A family
that is not here is refused by name, unless `cm.load(..., layout="probe")` is asked to find out where its visual tokens
look.

"""


def page() -> str:
    """The page docs/families.md."""
    return HEAD + families_markdown() + "\n"


def readme(text: str) -> str:
    """The README's text with its table made anew."""
    rows = family_rows()
    ways = sorted({str(row["way_in"]) for row in rows}, key=lambda way: (-sum(row["way_in"] == way for row in rows), way))
    table = ["| way in | families |", "|---|---|"]
    table += [f"| {way} | {', '.join(str(row['family']) for row in rows if row['way_in'] == way)} |" for way in ways]
    return re.sub(
        r"(<!-- families -->\n).*?(\n<!-- end -->)", lambda match: match[1] + "\n".join(table) + match[2], text, flags=re.S
    )


def main() -> None:
    (ROOT / "docs/families.md").write_text(page(), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
