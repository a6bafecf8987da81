"""`cmllm eval`, `cmllm heads`, `cmllm sweep`: what is measured over sets of examples."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data.dataset import Dataset
from ..errors import SettingsError
from ..files import existing
from ..inputs.images import read_image
from ..inputs.regions import REGION_KINDS
from ..show.report import write_page
from ..strict import whole_number
from .options import (
    add_count,
    add_method,
    add_model,
    add_region,
    add_running,
    check_count,
    check_outputs,
    latent_method_of,
    models_of,
    region_given,
    region_of,
)
from .shipped import SHIPPED, folder_of, given_folder, with_its_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..analysis import Recommendation, Sweep
    from ..bench.window_test import HeldOut

# Queries that differ from example to example: the words that name the object.
BY_NAME = "name"


def add_heads(heads: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    heads.add_argument(
        "set", metavar="SET", help="embedded or smol (their held-out scenes), or a folder in the format of ROC"
    )
    add_count(heads)
    heads.add_argument("--region", choices=REGION_KINDS, default="box")
    heads.add_argument(
        "--queries",
        default=BY_NAME,
        help="name (of the object, as the question has it), text, after_image, last, or a word",
    )
    add_running(heads, "--resume")
    add_model(heads)
    heads.add_argument("--json", action="store_true", help="print one JSON object with all heads")
    heads.add_argument("--out", type=Path, metavar="FILE", help="save the ranking, for HeadRanking.load")
    heads.add_argument("--html", type=Path, metavar="FILE", help="write a page with the grid")
    heads.set_defaults(run=_heads)


def add_sweep(sweep: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    sweep.add_argument(
        "what",
        metavar="IMAGE_OR_SET",
        help="embedded or smol (their held-out scenes), a folder in the format of ROC, or an image",
    )
    sweep.add_argument("question", nargs="?", metavar="QUESTION", help="about an image")
    add_region(sweep, required=False)
    sweep.add_argument("--answer", help="the right one, about an image")
    sweep.add_argument("--alternatives", nargs="+", default=[], metavar="ANSWER", help="wrong ones, about an image")
    sweep.add_argument("--region", choices=REGION_KINDS, default="box", help="which of a set's regions")
    sweep.add_argument("--n", type=int, default=40, metavar="N", help="examples of the first half to sweep (default: 40)")
    sweep.add_argument("--held-out", type=int, metavar="N", help="examples of the other half to test on (default: all)")
    sweep.add_argument(
        "--contexts", nargs="+", default=["text", "last"], metavar="QUERIES", help="context tokens (default: text last)"
    )
    sweep.add_argument(
        "--windows",
        type=int,
        metavar="N",
        help="sweep windows of N layers beside one another, and all layers together (default: every window there is, "
        "which are 465 of 30 layers)",
    )
    add_method(sweep, "layers", "queries")
    add_running(sweep, "--resume")
    add_model(sweep)
    sweep.add_argument("--json", action="store_true", help="print one JSON object")
    sweep.add_argument("--html", type=Path, metavar="FILE", help="write a page with the heat maps")
    sweep.set_defaults(run=_sweep)


def _evaluate(options: argparse.Namespace) -> int:
    from ..bench.embedded import evaluate
    from ..bench.tables import evaluation_table

    check_count(options)
    result = evaluate(options.n, skip=options.skip)
    print(json.dumps(result) if options.json else evaluation_table(result))
    return 130 if result.get("interrupted") else 0


def _heads(options: argparse.Namespace) -> int:
    from ..analysis import answer_words, rank_heads
    from ..data.formats.roc import read_roc
    from ..show.figures import head_ranking

    check_count(options)
    outputs = {"--resume": options.resume, "--out": options.out, "--html": options.html}
    check_outputs(outputs, given_folder(options.set), options.model)
    with_its_model(options, options.set)
    lines = read_roc(folder_of(options.set))[options.skip :][: options.n]
    examples = Dataset.of([line.example(options.region) for line in lines])
    examples = examples if options.shard is None else examples.shard(*options.shard)
    ranking = rank_heads(
        models_of(options),
        examples,
        answer_words if options.queries == BY_NAME else options.queries,
        path=options.resume,
        strict=options.strict,
        retry=options.retry,
    )
    _say_failed(ranking.failed)
    top = ranking.top(0.1)
    if options.json:
        summary = {
            "model": ranking.model,
            "examples": ranking.examples,
            "queries": options.queries,
            "pointing_chance": ranking.pointing_chance,
            "pointing_mean": float(ranking.pointing.mean()),
            "top": ranking.rows(top),
            "heads": ranking.rows(ranking.order),
        }
        print(json.dumps(summary))
    else:
        print(ranking.table(len(top)))
        print(
            f"mean of all {len(ranking.order)} heads: pointing {ranking.pointing.mean():.1%}, share over chance "
            f"{ranking.lift.mean():.2f}; by chance {ranking.pointing_chance:.1%} and 1; {ranking.examples} examples"
        )
    if options.out is not None:
        _wrote("ranking", ranking.save(options.out))
    if options.html is not None:
        title = f"Heads that find the object, {ranking.examples} examples"
        _wrote("page", write_page(title, [ranking._repr_html_(), head_ranking(ranking)], options.html))
    return 130 if ranking.examples + len(ranking.failed) < len(examples) else 0


def _say_failed(failed: Sequence[str]) -> None:
    """What went wrong with examples, where it is no part of the results."""
    for each in failed[:10]:
        print(f"failed: {each}", file=sys.stderr)
    if len(failed) > 10:
        print(f"and {len(failed) - 10} more failed", file=sys.stderr)


def _wrote(what: str, path: Path) -> None:
    """Say so where it is no part of the results."""
    print(f"{what:<9} {path}", file=sys.stderr)


def _sweep(options: argparse.Namespace) -> int:
    from ..bench.window_test import as_json
    from ..show.figures import window_grid

    check_outputs(
        {"--resume": options.resume, "--html": options.html}, given_folder(options.what), options.mask, options.model
    )
    folder = None if options.what.startswith("data:") else existing(options.what)
    of_a_set = options.what in SHIPPED or (folder is not None and folder.is_dir())
    try:
        sweep, chosen, tested = (_sweep_set if of_a_set else _sweep_image)(options)
    except Exception as error:
        if (so_far := getattr(error, "sweep", None)) is not None:
            print(so_far.table(10))
        raise
    _say_failed(sweep.failed + (() if tested is None else tested.failed))
    if options.json:
        print(json.dumps(as_json(sweep, chosen, tested)))
    else:
        print("\n\n".join(str(part) for part in (sweep.table(10), chosen, tested) if part is not None))
    if options.resume is not None:
        _wrote("sweep", options.resume)
    if options.html is not None:
        figures = ["moved", "damage", "right", "share", "energy"] if options.answer or of_a_set else ["share", "energy"]
        grids = [window_grid(sweep, name, chosen) for name in figures]
        _wrote("page", write_page(f"Windows of layers, {sweep.model}", [*grids, sweep._repr_html_()], options.html))
    to_test = of_a_set and options.held_out != 0 and options.shard is None
    whole = sweep.done == len(sweep.examples) and (not to_test or (tested is not None and tested.complete))
    return 0 if whole else 130


def _sweep_set(options: argparse.Namespace) -> tuple[Sweep, Recommendation | None, HeldOut | None]:
    from ..bench.sentences import SAYS
    from ..bench.window_test import sweep_and_test
    from ..data.formats.roc import read_roc

    if options.n < 2 or (options.held_out is not None and options.held_out < 0):
        raise SettingsError(f"--n must be at least 2 and --held-out at least 0; got {options.n} and {options.held_out}.")
    if options.question is not None or region_given(options) or options.answer is not None or options.alternatives:
        raise SettingsError("A set has questions, regions and answers of its own; leave out yours, or give an image.")
    with_its_model(options, options.what)
    lines = read_roc(folder_of(options.what))
    return sweep_and_test(
        models_of(options),
        lines,
        options.region,
        latent_method_of(options),
        options.contexts,
        options.n,
        options.held_out,
        options.resume,
        windows=_windows(options),
        says=SAYS.get(options.what, str),
        shard=options.shard,
        strict=options.strict,
        retry=options.retry,
    )


def _sweep_image(options: argparse.Namespace) -> tuple[Sweep, None, None]:
    from ..analysis import Example, sweep_windows

    if options.question is None:
        raise SettingsError(f"An image needs a QUESTION and a region; got {options.what!r} alone.")
    if options.shard is not None:
        raise SettingsError("A --shard is of a set, and an image has none; leave it out.")
    image, region = read_image(options.what), region_of(options)
    region.check(*image.size)
    example = Example(image, options.question, region, options.answer, tuple(options.alternatives))
    mllm = models_of(options)
    sweep = sweep_windows(
        mllm,
        [example],
        _windows(options),
        contexts=options.contexts,
        method=latent_method_of(options),
        path=options.resume,
        strict=options.strict,
        retry=options.retry,
    )
    return sweep, None, None


def _windows(options: argparse.Namespace) -> Literal["all"] | int:
    return "all" if options.windows is None else whole_number(options.windows, "--windows", 1)


COMMANDS = {"heads": add_heads, "sweep": add_sweep}
