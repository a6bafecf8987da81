"""`cmllm data check` and `cmllm data formats`: what a set has, and which formats are read."""

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..data import Dataset, all_formats, check, read
from ..errors import SettingsError
from ..notation import text_table


def add_data(data: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    commands = data.add_subparsers(title="commands", prog=data.prog, required=True, metavar="COMMAND")
    what = "count examples, images and regions, and list what is wrong by its line"
    checked = commands.add_parser("check", help=what, description=what, formatter_class=data.formatter_class)
    checked.add_argument("folder", type=Path, metavar="FOLDER", help="of the set, or its list of examples")
    add_reading(checked)
    checked.add_argument("--json", action="store_true", help="print one JSON object with all faults")
    checked.set_defaults(run=_check)
    what = "list the formats that are read"
    listed = commands.add_parser("formats", help=what, description=what, formatter_class=data.formatter_class)
    listed.set_defaults(run=_formats)


def add_reading(parser: argparse._ActionsContainer) -> None:
    """How a set is read."""
    parser.add_argument("--format", choices=list(all_formats()), help="of the set (default: found out)")
    parser.add_argument(
        "--read",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of the format, as region=mask, located=true, or split=bbox of ViP-Bench",
    )


def dataset_of(folder: Any, options: argparse.Namespace) -> Dataset:
    """The set of `add_reading`.

    Raises:
        DataError, SettingsError: as `data.read`.
    """
    given: dict[str, Any] = {}
    for text in options.read:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--read takes NAME=VALUE, as region=mask; got {text!r}.")
        given[name] = {"true": True, "false": False}.get(value.lower(), value)
    return read(folder, options.format, **given)


def _check(options: argparse.Namespace) -> int:
    found = check(dataset_of(options.folder, options))
    print(json.dumps(found.to_json()) if options.json else found.table())
    return 1 if found.faults else 0


def _formats(options: argparse.Namespace) -> int:
    rows = [["format", "its list of examples", "regions", "options", "scorer"]]
    for name, kind in all_formats().items():
        settings = ", ".join(each.name for each in fields(kind))
        rows.append([name, kind.files[0], ", ".join(kind.regions), settings, kind.scorer])
    print(text_table(rows, "<<<<<"))
    return 0


COMMANDS = {"data": add_data}
