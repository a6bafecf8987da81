"""`cmllm demo` and `cmllm steer`: one image, one question, one region."""

import argparse
import sys
from pathlib import Path
from typing import Any

from ..callbacks import Answers, Callback, Checkpoint, ProgressBar
from ..files import make_folder, write_whole
from ..images import read_image
from ..loading import load
from ..methods import ControlMLLMPlus, Method
from ..optimize import optimize
from ..regions import Region
from ..report import write_report
from ..trace import Trace
from .options import add_method, add_model, add_region, check_outputs, loading_of, method_of, region_of, window


def add_demo(demo: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    demo.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder of trace and page (default: out)"
    )
    demo.set_defaults(run=_demo)


def add_steer(steer: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    steer.add_argument("image", metavar="IMAGE", help="a file, or a data: URI")
    steer.add_argument("question", metavar="QUESTION")
    add_region(steer)
    add_method(steer)
    steer.add_argument("--layers", type=window, metavar="A:B", help="window of decoder layers, B excluded")
    steer.add_argument("--queries", help="text, after_image, last, or a word of the question")
    add_model(steer)
    steer.add_argument("--out", type=Path, metavar="FILE", help="save the trace, e.g. run.safetensors")
    steer.add_argument("--html", type=Path, metavar="FILE", help="write a page with the step player")
    steer.set_defaults(run=_steer)


def _demo(options: argparse.Namespace) -> int:
    from ..bench.demo import demo_scene

    example = demo_scene()
    folder = make_folder(options.out)
    out, html = folder / "demo.safetensors", folder / "demo.html"
    check_outputs({"the trace": out, "the page": html})
    image = write_whole(folder / "scene.png", lambda file: example.image.save(file, "PNG"))
    region = example.region("box")
    print(f"image     {image}, region {region}")
    return _run(image, example.question, region, ControlMLLMPlus(), {}, out, html)


def _steer(options: argparse.Namespace) -> int:
    image = read_image(options.image)
    method, region = method_of(options, "layers", "queries"), region_of(options)
    region.check(*image.size)
    check_outputs({"--out": options.out, "--html": options.html}, options.image, options.mask, options.model)
    return _run(image, options.question, region, method, loading_of(options), options.out, options.html)


def _run(
    image: Any,
    question: str,
    region: Region,
    method: Method,
    loading: dict[str, Any],
    out: Path | None,
    html: Path | None,
) -> int:
    mllm = load(**loading)
    prompt = mllm.prepare(image, question)
    # The table of the steps says the same, where there is no terminal for a bar to move in.
    callbacks: list[Callback] = [ProgressBar()] if sys.stderr.isatty() else []
    callbacks.append(Answers("ends"))
    checkpoint = None if out is None else Checkpoint(out)
    callbacks += [] if checkpoint is None else [checkpoint]
    try:
        trace = optimize(mllm, prompt, region, method, callbacks)
    except Exception:
        if checkpoint is not None and checkpoint.saved is not None:
            print(f"trace     {checkpoint.saved}, up to the error")
        raise
    print(_summary(trace))
    if checkpoint is not None:
        # One that failed is tried once more, and then says so.
        print(f"trace     {checkpoint.saved or trace.save(checkpoint.path if trace.whole else checkpoint.here)}")
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


COMMANDS = {"demo": add_demo, "steer": add_steer}
