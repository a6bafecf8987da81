"""The command line: `cmllm demo`, `cmllm steer`, `cmllm eval`, `cmllm heads`, `cmllm families`."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .callbacks import Answers, Callback, Checkpoint, ProgressBar
from .errors import CmllmError, SettingsError
from .images import read_image
from .loading import load
from .methods import ControlMLLM, ControlMLLMPlus, Method
from .models.embedded import DEMO_SCENE, HELDOUT
from .models.lookup import family_rows
from .optimize import optimize
from .regions import Box, Mask, Point, Region, Scribble
from .report import write_page, write_report
from .trace import Trace, check_writable
from .version import VERSION

EMBEDDED = "embedded"
# Queries that differ from example to example: the words that name the object.
BY_NAME = "name"
METHODS: dict[str, Callable[..., Method]] = {
    "controlmllm": ControlMLLM,
    "reference": ControlMLLM.reference,
    "controlmllm++": ControlMLLMPlus,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for input that cannot be used, 130 after an interrupt."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"cmllm: warning: {message}", file=sys.stderr)
    try:
        return options.run(options)
    except CmllmError as error:
        print(f"cmllm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cmllm: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cmllm", description="See and steer where a multimodal language model looks.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="steer the embedded model on one of its held-out scenes")
    demo.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder of trace and page (default: out)"
    )
    demo.set_defaults(run=_demo)

    steer = commands.add_parser("steer", help="ask about a region of an image")
    steer.add_argument("image", type=Path, metavar="IMAGE")
    steer.add_argument("question", metavar="QUESTION")
    region = steer.add_mutually_exclusive_group(required=True)
    region.add_argument("--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="corners in pixels")
    region.add_argument("--mask", type=Path, metavar="FILE", help="image of the same size; non-black marks the region")
    region.add_argument("--scribble", type=_pair, nargs="+", metavar="X,Y", help="points of a line")
    region.add_argument("--point", type=float, nargs=2, metavar=("X", "Y"))
    steer.add_argument("--method", choices=METHODS, default="controlmllm++")
    steer.add_argument("--steps", type=int, metavar="N", help="updates of the latent")
    steer.add_argument("--step-size", type=float, metavar="X", help="alpha, or Adam's learning rate")
    steer.add_argument("--layers", type=_window, metavar="A:B", help="window of decoder layers, B excluded")
    steer.add_argument("--queries", help="text, after_image, last, or a word of the question")
    steer.add_argument("--sigma", type=float, help="width of the Gaussian around scribbles and points")
    _add_model(steer)
    steer.add_argument("--out", type=Path, metavar="FILE", help="save the trace, e.g. run.safetensors")
    steer.add_argument("--html", type=Path, metavar="FILE", help="write a page with the step player")
    steer.set_defaults(run=_steer)

    evaluate = commands.add_parser("eval", help="measure accuracies on a held-out set")
    evaluate.add_argument("set", choices=["embedded"])
    evaluate.add_argument("--n", type=int, metavar="N", help="number of scenes (default: all)")
    evaluate.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N scenes")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=_evaluate)

    heads = commands.add_parser("heads", help="rank heads by how well their attention finds what is referred to")
    heads.add_argument("set", metavar="SET", help="embedded (its held-out scenes), or a folder in the format of ROC")
    heads.add_argument("--n", type=int, metavar="N", help="number of examples (default: all)")
    heads.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N examples")
    heads.add_argument("--region", choices=["box", "mask", "scribble", "point"], default="box")
    heads.add_argument(
        "--queries",
        default=BY_NAME,
        help="name (of the object, as the question has it), text, after_image, last, or a word",
    )
    _add_model(heads)
    heads.add_argument("--json", action="store_true", help="print one JSON object with all heads")
    heads.add_argument("--out", type=Path, metavar="FILE", help="save the ranking, for HeadRanking.load")
    heads.add_argument("--html", type=Path, metavar="FILE", help="write a page with the grid")
    heads.set_defaults(run=_heads)

    families = commands.add_parser("families", help="list the supported families of models")
    form = families.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table, as in docs/families.md")
    families.set_defaults(run=_families)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="ID", help="hub id or folder (default: the embedded model)")
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    parser.add_argument("--device-map", metavar="MAP", help="for from_pretrained: auto, cpu, cuda:0, ...")
    parser.add_argument("--load-in-4bit", action="store_true", help="nf4 weights; needs bitsandbytes")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def _demo(options: argparse.Namespace) -> int:
    from .bench.roc import read_roc

    example = read_roc(HELDOUT, "question_describe.json")[DEMO_SCENE]
    options.out.mkdir(parents=True, exist_ok=True)
    image = options.out / "scene.png"
    example.image.save(image)
    region = example.region("box")
    print(f"image     {image}, region {region}")
    return _run(
        image, example.question, region, ControlMLLMPlus(), {}, options.out / "demo.safetensors", options.out / "demo.html"
    )


def _steer(options: argparse.Namespace) -> int:
    image = read_image(options.image)
    given = {name: getattr(options, name) for name in ("steps", "step_size", "layers", "queries", "sigma")}
    method = METHODS[options.method](**{name: value for name, value in given.items() if value is not None})
    region = _region(options)
    region.check(*image.size)
    return _run(image, options.question, region, method, _loading(options), options.out, options.html)


def _run(
    image: Any,
    question: str,
    region: Region,
    method: Method,
    loading: dict[str, Any],
    out: Path | None,
    html: Path | None,
) -> int:
    _check_outputs(out, html)
    mllm = load(**loading)
    prompt = mllm.prepare(image, question)
    callbacks: list[Callback] = [ProgressBar(), Answers("ends")]
    if out is not None:
        callbacks.append(Checkpoint(out))
    trace = optimize(mllm, prompt, region, method, callbacks)
    print(_summary(trace))
    if out is not None:
        print(f"trace     {out}")
    if html is not None:
        print(f"page      {write_report(trace, html)}")
    return 130 if trace.stopped == "interrupted" else 0


def _summary(trace: Trace) -> str:
    return (
        f"question  {trace.question}\n"
        f"before    {trace.steps[0].answer}\n"
        f"after     {trace.steps[-1].answer}\n"
        f"ended     {trace.stopped}\n\n{trace.table()}\n"
    )


def _evaluate(options: argparse.Namespace) -> int:
    from .bench.embedded import evaluate

    _check_count(options)
    result = evaluate(options.n, skip=options.skip)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0


def _heads(options: argparse.Namespace) -> int:
    from .analysis import named, rank_heads
    from .bench.roc import read_roc
    from .figures import head_ranking

    _check_count(options)
    _check_outputs(options.out, options.html)
    lines = read_roc(HELDOUT if options.set == EMBEDDED else options.set)[options.skip :][: options.n]
    examples = [line.example(options.region) for line in lines]
    ranking = rank_heads(load(**_loading(options)), examples, named if options.queries == BY_NAME else options.queries)
    top = ranking.top(0.1)
    if options.out is not None:
        ranking.save(options.out)
    if options.html is not None:
        title = f"Heads that find the object, {ranking.examples} examples"
        write_page(title, [ranking._repr_html_(), head_ranking(ranking)], options.html)
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
    return 130 if ranking.examples < len(examples) else 0


def _families(options: argparse.Namespace) -> int:
    rows = family_rows()
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    if options.markdown:
        print(families_markdown())
        return 0
    table = _table(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())
    return 0


def families_markdown() -> str:
    """The table of families in Markdown."""
    head, *lines = _table(family_rows())
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Names, then values, as text."""
    cells = [[{True: "yes", False: "no"}.get(value, str(value)) for value in row.values()] for row in rows]
    return [list(rows[0]), *cells]


def _region(options: argparse.Namespace) -> Region:
    if options.box:
        return Box(*options.box)
    if options.mask:
        import numpy as np

        return Mask(np.asarray(read_image(options.mask).convert("L")) > 0)
    if options.scribble:
        return Scribble(options.scribble)
    return Point(*options.point)


def _check_count(options: argparse.Namespace) -> None:
    if options.skip < 0 or (options.n is not None and options.n < 1):
        raise SettingsError(f"--n must be at least 1 and --skip at least 0; got {options.n} and {options.skip}.")


def _check_outputs(*paths: Path | None) -> None:
    """Before the run: nothing that was computed may be lost to a mistyped path."""
    for path in paths:
        if path is not None:
            check_writable(path)


def _loading(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of `_add_model`, for `load`."""
    loading = {
        "model": options.model,
        "revision": options.revision,
        "dtype": options.dtype,
        "device_map": options.device_map,
        "quantization_config": _four_bit() if options.load_in_4bit else None,
        "trust_remote_code": options.trust_remote_code,
    }
    return {name: value for name, value in loading.items() if value is not None}


def _four_bit() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)


def _pair(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a point must be X,Y; got {text!r}") from None
    return x, y


def _window(text: str) -> tuple[int, int]:
    try:
        low, high = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a window of layers must be A:B; got {text!r}") from None
    return low, high


if __name__ == "__main__":
    sys.exit(main())
