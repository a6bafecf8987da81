"""`cmllm families`: the table of models."""

import argparse
import json
from typing import Any

from ..models.lookup import family_rows
from ..notation import markdown_table, text_table


def add_families(families: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    form = families.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table, as in docs/families.md")
    families.set_defaults(run=_families)


def _families(options: argparse.Namespace) -> int:
    rows = family_rows()
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    if options.markdown:
        print(families_markdown())
        return 0
    table = _table(rows)
    print(text_table(table, "<" * len(table[0])))
    return 0


def families_markdown() -> str:
    """The table of families in Markdown."""
    return markdown_table(_table(family_rows()))


def _table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Names, then values, as text."""
    cells = [[{True: "yes", False: "no"}.get(value, str(value)) for value in row.values()] for row in rows]
    return [list(rows[0]), *cells]


COMMANDS = {"families": add_families}
