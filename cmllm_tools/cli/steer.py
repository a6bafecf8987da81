"""`cmllm demo` and `cmllm steer`: one image, one question, one region."""

import argparse
import sys
from pathlib import Path
from typing import Any

from ..files import make_folder, write_whole
from ..inputs.images import read_image
from ..inputs.regions import Region
from ..loading import EMBEDDED, load
from ..models.mllm import Mllm
from ..models.smol import NAME
from ..referring.callbacks import Answers, Callback, Checkpoint, ProgressBar
from ..referring.latent_method import LatentMethod
from ..referring.method import Method
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..referring.methods.key_steering import KeySteering
from ..referring.run import refer
from ..referring.steering import optimize
from ..referring.trace import Trace
from ..show.report import write_page, write_report
from .options import add_method, add_model, add_region, check_outputs, loading_of, method_of, region_of


def add_demo(demo: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    demo.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder of trace and page (default: out)"
    )
    demo.add_argument(
        "--model", choices=[EMBEDDED, NAME], default=EMBEDDED, help="embedded (default), or smol, a real language model"
    )
    demo.set_defaults(run=_demo)


def add_steer(steer: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    steer.add_argument("image", metavar="IMAGE", help="a file, or a data: URI")
    steer.add_argument("question", metavar="QUESTION")
    add_region(steer)
    add_method(steer)
    add_model(steer)
    steer.add_argument(
        "--out", type=Path, metavar="FILE", help="save the trace, e.g. run.safetensors; without steps, the outcome"
    )
    steer.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the step player; without steps, the outcome"
    )
    steer.set_defaults(run=_steer)


def _demo(options: argparse.Namespace) -> int:
    from ..bench.heldout import demo_scene
    from ..bench.smol_sets import smol_scene

    real = options.model == NAME
    example = smol_scene() if real else demo_scene()
    method: LatentMethod = KeySteering() if real else ControlMLLMPlus()
    folder = make_folder(options.out)
    kind = f"-{NAME}" if real else ""
    out, html = folder / f"demo{kind}.safetensors", folder / f"demo{kind}.html"
    check_outputs({"the trace": out, "the page": html})
    mllm = load(options.model)
    image = write_whole(folder / f"scene{kind}.png", lambda file: example.image.save(file, "PNG"))
    region = example.region("box")
    print(f"image     {image}, region {region}")
    return _run(mllm, image, example.question, region, method, out, html)


def _steer(options: argparse.Namespace) -> int:
    image = read_image(options.image)
    method, region = method_of(options), region_of(options)
    region.check(*image.size)
    check_outputs({"--out": options.out, "--html": options.html}, options.image, options.mask, options.model)
    mllm = load(**loading_of(options))
    if isinstance(method, LatentMethod):
        return _run(mllm, image, options.question, region, method, options.out, options.html)
    return _answer(mllm, image, options.question, region, method, options.out, options.html)


def _answer(
    mllm: Mllm,
    image: Any,
    question: str,
    region: Region,
    method: Method,
    out: Path | None,
    html: Path | None,
) -> int:
    plain = mllm.generate(mllm.prepare(image, question))
    outcome = refer(mllm, image, question, region, method)
    sent = "" if outcome.sent.question == question else f"sent      {outcome.sent.question}\n"
    print(f"question  {question}\n{sent}before    {plain}\nafter     {outcome.answer}\n")
    if out is not None:
        print(f"outcome   {outcome.save(out)}")
    if html is not None:
        print(f"page      {write_page(question, [outcome._repr_html_()], html)}")
    return 0


def _run(
    mllm: Mllm,
    image: Any,
    question: str,
    region: Region,
    method: LatentMethod,
    out: Path | None,
    html: Path | None,
) -> int:
    prompt = mllm.prepare(image, question)
    # The table of the steps says the same, where there is no terminal for a bar to move in.
    callbacks: list[Callback] = [ProgressBar()] if sys.stderr.isatty() else []
    callbacks.append(Answers("ends"))
    checkpoint = None if out is None else Checkpoint(out)
    callbacks += [] if checkpoint is None else [checkpoint]
    try:
        trace = optimize(mllm, prompt, region, method, callbacks=callbacks)
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
        f"ended     {trace.stopped}\n\n{trace.table()}\n\n"
        "energy: what the steps lower; share: of the attention on the image, what lies in the region; latent: how far the\n"
        "visual tokens, or their keys, were moved; gradient: of the energy at what is moved\n"
    )


COMMANDS = {"demo": add_demo, "steer": add_steer}
