"""`cmllm report`: a page of a run's records."""

import argparse
from pathlib import Path

from ..evaluation import Evaluation
from ..show.records import write_records
from .options import check_outputs


def add_report(report: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    report.add_argument("records", type=Path, metavar="RECORDS", help="a file of `cmllm eval --out`")
    report.add_argument("--against", type=Path, metavar="OTHER", help="records of another run of the same set")
    report.add_argument(
        "--html", type=Path, metavar="FILE", help="of the page (default: beside the records, with the ending .html)"
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    page = options.html or options.records.with_suffix(".html")
    check_outputs({"--html": page}, options.records, options.against)
    run = Evaluation.load(options.records)
    against = None if options.against is None else Evaluation.load(options.against)
    print(f"page      {write_records(run, page, against)}")
    return 0


COMMANDS = {"report": add_report}
