"""One call for every way of referring: image, question and regions in, an answer and all that belongs to it out."""

from collections.abc import Sequence
from typing import Any

from ..errors import SettingsError
from ..inputs.images import ImageSource, read_image
from ..inputs.regions import Region, Regions, as_regions
from ..models.interventions import Intervention
from ..models.look import Look, Seen
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from .callbacks import Callback
from .cost import measured
from .latent_method import LatentMethod
from .method import Method, Request, given_method
from .methods.controlmllm import ControlMLLM
from .outcome import Outcome, Sent
from .provenance import Provenance
from .steering import optimize
from .trace import Trace


def refer(
    mllm: Mllm,
    image: ImageSource | Look | Seen,
    question: str,
    regions: Regions,
    method: Method | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    max_new_tokens: int = 64,
    **options: Any,
) -> Outcome:
    """Ask a question about regions of an image, by any method.

    What the method sends is prepared, its steps are taken (an interrupt ends them, and the answer is given with those that
    were), its intervention is opened, and the model answers.

    Args:
        mllm: the model.
        image: all that `read_image` takes, or a `Look` or `Seen` of this model: methods that send the image as it is share
            that.
        question: the user's words; a method that names the region in words puts them in place of `{place}`, others leave
            it out.
        regions: one or several, in pixels of the image.
        method: how to refer; `ControlMLLM()` when None.
        callbacks: told of every step, where the method takes steps.
        max_new_tokens: upper bound on the answer's length.
        **options: for `Mllm.generate`.

    Raises:
        ImageError, PromptError: as `Mllm.prepare` does.
        RegionError: for a region that is not on the image, or that the model does not see.
        SettingsError: for a setting out of range, callbacks for a method without steps, and options that `Mllm.generate`
            refuses.
        OptimizationError: as `optimize` does.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, "describe the object.", box, cm.ControlMLLMPlus(steps=3))
        >>> print(outcome.answer)
        red cross at the right
    """
    require(mllm)
    given = given_method(method, ControlMLLM())
    source, several = image.image if isinstance(image, Look | Seen) else read_image(image), as_regions(regions)
    for region in several:
        region.check(*source.size)
    with measured(mllm.device) as cost:
        resolved = given.resolve(mllm)
        asked = resolved.sent(Request(source, question, several), mllm).named("")
        prompt = _prompt(mllm, image if asked.image is source else asked.image, asked)
        intervention, trace = found(mllm, prompt, asked.regions, resolved, callbacks)
        if isinstance(image, Seen) and intervention is None and asked.image is source and not options:
            answer, before = image.answer(prompt, max_new_tokens)
        else:
            answer, before = mllm.generate(prompt, intervention, max_new_tokens=max_new_tokens, **options), 0.0
    return Outcome(
        answer=answer,
        method=resolved,
        regions=several,
        question=question,
        size=source.size,
        sent=Sent.of(prompt.image, prompt.question, prompt.text, asked.regions),
        intervention=intervention,
        trace=trace,
        seconds=cost.seconds + before,
        peak_memory=cost.peak_memory,
        provenance=Provenance.of(mllm),
    )


def _prompt(mllm: Mllm, image: ImageSource | Look | Seen, asked: Request) -> Prompt:
    if isinstance(image, Seen):
        return image.prompt(asked.question)
    return mllm.prepare(image if isinstance(image, Look) else asked.image, asked.question)


def found(
    mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...], method: Method, callbacks: Sequence[Callback] = ()
) -> tuple[Intervention | None, Trace | None]:
    """What a method does to the model for a prompt of what it sends, and the trace of its steps where it takes any.

    Args:
        method: with every setting filled in.
    """
    if isinstance(method, LatentMethod):
        trace = optimize(mllm, prompt, regions, method, callbacks=callbacks)
        return trace.intervention, trace
    if callbacks:
        raise SettingsError(f"Callbacks are told of steps, and {method.called()} takes none; leave them out.")
    return method.intervention(mllm, prompt, regions), None
