"""`cmllm eval` and `cmllm records`: a set answered and scored, and the files of its answers."""

import argparse
import json
import re
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..errors import SettingsError
from ..evaluation import SCORERS, Evaluation, Judged, Scorer, Unsteered, evaluate, merge
from ..evaluation.runner import MAX_NEW_TOKENS
from ..inputs.regions import REGION_KINDS
from ..loading import EMBEDDED
from ..models.smol import NAME
from ..referring.defaults import UNSTEERED
from ..referring.method import Method
from ..strict import nearest
from . import measure
from .data import add_reading, dataset_of
from .options import add_count, add_model, add_running, as_named, check_count, check_outputs, makers, models_of
from .shipped import folder_of, given_folder, with_its_model

METHODS = (UNSTEERED, "controlmllm++")
ALL = "all"


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    command.add_argument(
        "set",
        metavar="SET",
        help="a folder in one of the formats of `cmllm data formats`, or embedded (the held-out scenes; with --n, --skip "
        "and --json alone, all regions and overlays are measured), or smol (its scenes of everyday things; likewise, "
        "also with --methods)",
    )
    examples = command.add_argument_group("examples")
    add_reading(examples)
    examples.add_argument("--split", metavar="NAME", help="of the set, as test (default: all)")
    add_count(examples)
    examples.add_argument("--shuffle", type=int, metavar="SEED", help="take the examples in another order, before --n")
    command.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=f"of {UNSTEERED}, {', '.join(makers())}; with settings as controlmllm++:steps=5,layers=0:3 "
        f"(default: {' '.join(METHODS)}); of embedded also {ALL}: every method by each kind of region, and controls; of "
        "these, and of smol's, --read kind=box takes one kind",
    )
    command.add_argument("--scorer", choices=list(SCORERS), help="of the answers (default: the set's own)")
    command.add_argument("--judge", metavar="MODULE:FUNCTION", help="gives the scores of the scorer judged, text to text")
    command.add_argument(
        "--max-new-tokens",
        type=int,
        default=MAX_NEW_TOKENS,
        metavar="N",
        help=f"of an answer (default: {MAX_NEW_TOKENS}, as published; RefCOCOg 50)",
    )
    command.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="answer N questions at once, where nothing is done to the model (default: 1)",
    )
    add_model(command)
    add_running(command, "--out")
    command.add_argument("--effects", action="store_true", help="measure log-odds gained, and damage to the language, too")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=partial(_evaluate, command))


def add_records(records: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    commands = records.add_subparsers(title="commands", prog=records.prog, required=True, metavar="COMMAND")
    what = "put the records of several runs together, as of the shards of a set; also of sweeps, and of rankings of heads"
    merged = commands.add_parser("merge", help=what, description=what, formatter_class=records.formatter_class)
    merged.add_argument("records", nargs="+", type=Path, metavar="FILE")
    merged.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file of all of them")
    merged.set_defaults(run=_merge)
    what = "sum up a file of records: figures with intervals, differences to the first method, what failed"
    shown = commands.add_parser("show", help=what, description=what, formatter_class=records.formatter_class)
    shown.add_argument("records", type=Path, metavar="FILE")
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.set_defaults(run=_show)


def _evaluate(command: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    asked = {name for name, value in vars(options).items() if value != command.get_default(name)}
    if options.set == EMBEDDED and asked <= {"set", "n", "skip", "json"}:
        return measure._evaluate(options)
    check_count(options)
    if options.set == EMBEDDED and options.methods == [ALL] and asked <= {"set", "n", "skip", "json", "methods", "read"}:
        return _evaluate_ways(options)
    by_kind = all(each.startswith("kind=") for each in options.read)
    if options.set == NAME and by_kind and asked <= {"set", "n", "skip", "json", "methods", "read"}:
        return _evaluate_smol(options)
    check_outputs({"--out": options.out}, options.model, given_folder(options.set))
    with_its_model(options, options.set)
    dataset = _dataset(options)
    methods = methods_of(options.methods or METHODS)
    given: dict[str, Any] = {
        "path": options.out,
        "scorer": _scorer(options, dataset),
        "max_new_tokens": options.max_new_tokens,
        "effects": options.effects,
        "strict": options.strict,
        "retry": options.retry,
    }
    if options.ray is not None and options.batch != 1:
        raise SettingsError("With --ray examples are handed out one by one; leave out --batch.")
    return _print(evaluate(models_of(options), dataset, methods, batch=options.batch, **given), options.json)


def _evaluate_smol(options: argparse.Namespace) -> int:
    from ..bench.smol import KINDS, evaluate_smol
    from ..bench.tables import smol_table

    given = {name: method for name, method in methods_of(options.methods or ()).items() if name != UNSTEERED}
    result = evaluate_smol(options.n, methods=given or None, kinds=_kinds(options, KINDS), skip=options.skip)
    print(json.dumps(result) if options.json else smol_table(result))
    return 130 if result.get("interrupted") else 0


def _evaluate_ways(options: argparse.Namespace) -> int:
    from ..bench.stopping import rule_beside_fixed
    from ..bench.tables import ways_table
    from ..bench.ways import evaluate_ways
    from ..models.smol import smol_folder

    result = evaluate_ways(options.n, kinds=_kinds(options, REGION_KINDS), skip=options.skip)
    # Tables do not show it.
    if options.json and not result.get("interrupted") and result["n"] > 1:
        try:
            # The larger model is not put together for this.
            result["stopping"] = rule_beside_fixed(result["n"], 4 if smol_folder().exists() else 0)
        except KeyboardInterrupt:
            result["interrupted"] = True
    print(json.dumps(result) if options.json else ways_table(result))
    return 130 if result.get("interrupted") else 0


def _kinds(options: argparse.Namespace, known: Sequence[str]) -> Sequence[str]:
    """Of regions: the one of --read, or all of them."""
    given = dict(each.partition("=")[::2] for each in options.read)
    if set(given) - {"kind"} or len(options.read) > 1:
        raise SettingsError(f"--read must be kind=NAME here, of {', '.join(known)}; got {options.read}.")
    return [given["kind"]] if given else known


def _print(found: Evaluation, as_json: bool) -> int:
    print(json.dumps(found.summary()) if as_json else found.table())
    return 0 if found.complete else 130


def _dataset(options: argparse.Namespace) -> Dataset:
    found = dataset_of(folder_of(options.set), options)
    found = found if options.split is None else found.split(options.split)
    found = found if options.shuffle is None else found.shuffled(options.shuffle)
    found = found[options.skip :][: options.n]
    return found if options.shard is None else found.shard(*options.shard)


def _scorer(options: argparse.Namespace, dataset: Dataset) -> Scorer | str:
    name = options.scorer or dataset.scorer
    if name != Judged.name:
        return str(name)
    if options.judge is None:
        raise SettingsError("Answers that are judged need --judge MODULE:FUNCTION, or another --scorer.")
    module, _, function = options.judge.partition(":")
    try:
        return Judged(judge=getattr(import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"--judge must be MODULE:FUNCTION that can be imported; got {options.judge!r}: {error}"
        ) from error


def methods_of(texts: Any) -> dict[str, Method]:
    """Methods by their names on the command line, each with settings behind a colon: `controlmllm++:steps=5`.

    Raises:
        SettingsError: for a method or a setting that does not exist, a value out of range, or one method twice.
    """
    found: dict[str, Method] = {}
    for text in texts:
        name, _, settings = text.partition(":")
        if text in found:
            raise SettingsError(f"Each of --methods must be another one; got {text} twice.")
        found[text] = Unsteered() if text == UNSTEERED else _method(name, settings)
    return found


def _method(name: str, settings: str) -> Method:
    known, name = makers(), as_named(name)
    if name not in known:
        raise SettingsError(f"A method must be one of {UNSTEERED}, {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    maker, given = known[name], {}
    # A comma may also stand within a value, as in heads=0:1,2:3.
    for part in filter(None, re.split(r",(?=[a-z_-]+=)", settings)):
        setting, equals, value = part.partition("=")
        key = setting.strip().replace("-", "_")
        if not equals or key not in maker.settings:
            raise SettingsError(f"Settings of {name} are NAME=VALUE of {', '.join(maker.settings)}; got {part!r}.")
        given[key] = value
    return maker.made(given)


def _merge(options: argparse.Namespace) -> int:
    check_outputs({"--out": options.out}, *options.records)
    path, count = merge(options.records, options.out)
    print(f"records   {path}, {count} of {len(options.records)} files")
    return 0


def _show(options: argparse.Namespace) -> int:
    return _print(Evaluation.load(options.records), options.json)


COMMANDS = {"eval": add_evaluate, "records": add_records}
