"""One call for every way of referring: image, question and regions in, an answer and all that belongs to it out."""

from collections.abc import Sequence
from typing import Any

from ..errors import SettingsError
from ..inputs.conversation import Conversation, Messages
from ..inputs.images import ImageSource
from ..inputs.regions import Region, Regions
from ..inputs.video import Video
from ..models.interventions import Intervention
from ..models.look import Look, Seen
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..progress import PATIENCE, waiting
from ..strict import flag
from .asked import Asked
from .callbacks import Callback, ProgressBar
from .cost import measured
from .latent_method import LatentMethod
from .method import Method, given_method
from .methods.controlmllm import ControlMLLM
from .outcome import Outcome, Sent
from .provenance import Provenance
from .steering import optimize
from .trace import Trace


def refer(
    mllm: Mllm,
    image: ImageSource | Look | Seen | Video | Conversation | Messages,
    question: str | None,
    regions: Regions,
    method: Method | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    max_new_tokens: int = 64,
    progress: bool = True,
    **options: Any,
) -> Outcome:
    """Ask a question about regions of an image, by any method.

    What the method sends is prepared, its steps are taken (an interrupt ends them, and the answer is given with those that
    were), its intervention is opened, and the model answers.

    Args:
        mllm: the model.
        image: all that `read_image` takes, or a `Look` or `Seen` of this model: methods that send the image as it is share
            that; a `Video`; or a conversation, as for `Mllm.prepare`. A method that draws on an image changes the one that
            the regions are on, or each of the frames.
        question: the user's words; a method that names the region in words puts them in place of `{place}`, others leave
            it out. None of a conversation, which has its own.
        regions: one or several, in pixels of the image; of several images by number, as `Box(..., image=1)`.
        method: how to refer; `ControlMLLM()` when None.
        callbacks: told of every step, where the method takes steps.
        max_new_tokens: upper bound on the answer's length.
        progress: where it takes more than two seconds, say so; a method that takes steps, without `callbacks`, shows a bar.
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
    user = Asked.of(image, question)
    several = user.regions(regions)
    steps = isinstance(given, LatentMethod)
    if steps and flag(progress, "progress") and not callbacks:
        callbacks = (ProgressBar(after=PATIENCE),)
    with waiting(f"referring by {given.called()}", flag(progress, "progress") and not steps), measured(mllm.device) as cost:
        resolved = given.resolve(mllm)
        asked, places = user.sent(resolved, several, mllm)
        prompt = asked.prepared(mllm)
        intervention, trace = found(mllm, prompt, places, resolved, callbacks)
        if isinstance(asked.look, Seen) and intervention is None and not options:
            answer, before = asked.look.answer(prompt, max_new_tokens)
        else:
            answer, before = mllm.generate(prompt, intervention, max_new_tokens=max_new_tokens, **options), 0.0
    return Outcome(
        answer=answer,
        method=resolved,
        regions=several,
        question=user.question,
        size=user.image.size,
        sent=Sent.of(prompt.image, prompt.question, prompt.text, places, prompt.conversation),
        intervention=intervention,
        trace=trace,
        seconds=cost.seconds + before,
        peak_memory=cost.peak_memory,
        provenance=Provenance.of(mllm),
    )


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
