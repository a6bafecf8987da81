"""`cmllm compare`: one image, one question, one region, several ways of referring to it."""

import argparse
from pathlib import Path

from ..inputs.images import read_image
from ..loading import load
from ..referring.compare import compare, named_methods
from ..show import figures
from ..show.report import write_page
from .options import add_model, add_region, check_outputs, loading_of, makers, region_of


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    parser.add_argument("image", metavar="IMAGE", help="a file, or a data: URI")
    parser.add_argument("question", metavar="QUESTION", help="{place} in it becomes what a method calls the region")
    add_region(parser)
    parser.add_argument(
        "--methods", nargs="+", choices=list(makers()), metavar="METHOD", help="ways to refer (default: one of each kind)"
    )
    parser.add_argument(
        "--candidates", nargs="+", default=(), metavar="ANSWER", help="two or more answers whose log-odds are measured"
    )
    parser.add_argument("--text", help="an unrelated text, that damage is measured on")
    add_model(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="save the figures as JSON")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the table, what was sent, and a figure"
    )
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    image, region = read_image(options.image), region_of(options)
    region.check(*image.size)
    check_outputs({"--out": options.out, "--html": options.html}, options.image, options.mask, options.model)
    methods = None if options.methods is None else named_methods([makers()[name].made({}) for name in options.methods])
    found = compare(
        load(**loading_of(options)),
        image,
        options.question,
        region,
        methods=methods,
        candidates=options.candidates,
        text=options.text,
    )
    print(f"question  {found.question}\n\n{found.table()}\n")
    if options.out is not None:
        print(f"saved     {found.save(options.out)}")
    if options.html is not None:
        page = write_page(found.question, [found._repr_html_(), figures.comparison(found)], options.html)
        print(f"page      {page}")
    return 0 if found.complete else 130


COMMANDS = {"compare": add_compare}
