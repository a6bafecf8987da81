"""`cmllm reproduce`: a published table, run again, and its figures beside what comes out."""

import argparse
import json
from pathlib import Path

from ..evaluation.published import METHODS, TABLES, reproduce
from ..inputs.regions import REGION_KINDS
from ..loading import load
from .options import add_model, check_count, check_outputs, loading_of


def add_reproduce(command: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    command.add_argument("method", choices=list(METHODS), help="of the paper")
    command.add_argument("--table", choices=list(TABLES), required=True, help="of the paper")
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of the set, in the reference's layout"
    )
    command.add_argument("--regions", nargs="+", choices=REGION_KINDS, help="kinds of region (default: all of the table)")
    command.add_argument("--preset", metavar="NAME", help="llava-1.5 or qwen2.5-vl (default: told by the model)")
    command.add_argument("--n", type=int, metavar="N", help="number of examples (default: the whole published split)")
    add_model(command)
    command.add_argument("--out", type=Path, metavar="FILE", help="add each answer to this file, and go on from it")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_reproduce, skip=0)


def _reproduce(options: argparse.Namespace) -> int:
    check_count(options)
    check_outputs({"--out": options.out}, options.model, options.data)
    found = reproduce(
        load(**loading_of(options)),
        options.method,
        options.table,
        options.data,
        preset=options.preset,
        regions=options.regions,
        count=options.n,
        path=options.out,
    )
    print(json.dumps(found.summary()) if options.json else found.text())
    return 0 if found.run.complete else 130


COMMANDS = {"reproduce": add_reproduce}
