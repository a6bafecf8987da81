"""One call for every way of referring: image, question and regions in, an answer and all that belongs to it out."""

from collections.abc import Sequence
from typing import Any

from ..errors import SettingsError
from ..inputs.conversation import Conversation, Messages, is_messages
from ..inputs.images import ImageSource
from ..inputs.regions import Region, Regions
from ..inputs.video import Video
from ..models.batch import MAX_COPIES
from ..models.interventions import Intervention
from ..models.look import Look, Seen
from ..models.mllm import Mllm, require
from ..models.prompt import MOST_COPIES, Prompt
from ..models.together import answers_each
from ..progress import PATIENCE, waiting
from ..strict import flag, several, whole_number
from .asked import Asked
from .callbacks import Callback, ProgressBar
from .cost import measured
from .latent_method import LatentMethod
from .method import Method, given_method
from .methods.controlmllm import ControlMLLM
from .outcome import Outcome, Sent
from .provenance import Provenance
from .recorded import optimize_each
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
    places = user.regions(regions)
    steps = isinstance(given, LatentMethod)
    if steps and flag(progress, "progress") and not callbacks:
        callbacks = (ProgressBar(after=PATIENCE),)
    with waiting(f"referring by {given.called()}", flag(progress, "progress") and not steps), measured(mllm.device) as cost:
        resolved = given.resolve(mllm)
        asked, sent = user.sent(resolved, places, mllm)
        prompt = asked.prepared(mllm)
        intervention, trace = found(mllm, prompt, sent, resolved, callbacks)
        if isinstance(asked.look, Seen) and intervention is None and not options:
            answer, before = asked.look.answer(prompt, max_new_tokens)
        else:
            answer, before = mllm.generate(prompt, intervention, max_new_tokens=max_new_tokens, **options), 0.0
    return Outcome(
        answer=answer,
        method=resolved,
        regions=places,
        question=user.question,
        size=user.image.size,
        sent=Sent.of(prompt.image, prompt.question, prompt.text, sent, prompt.conversation),
        intervention=intervention,
        trace=trace,
        seconds=cost.seconds + before,
        peak_memory=cost.peak_memory,
        provenance=Provenance.of(mllm),
    )


def refer_each(
    mllm: Mllm,
    image: ImageSource | Look | Seen | Video | Conversation | Messages,
    question: str | None,
    regions: Sequence[Regions],
    method: Method | None = None,
    *,
    max_new_tokens: int = 64,
    max_copies: int = MAX_COPIES,
    progress: bool = True,
) -> tuple[Outcome, ...]:
    """Ask one question about each of several regions by itself: `refer` for each, in batches where that can be.

    It can where the method optimises a latent on one image and decodes plainly, and the model's family is one that the
    tests cover and whose batches are kept apart; others are taken one by one. Each outcome is what it would be alone, but
    for rounding and its cost: its `seconds` are its part of the batch's, its `peak_memory` is the batch's.

    An interrupt leaves out what had not begun: the outcomes so far are returned, of which the last are `interrupted`.

    Args:
        mllm, image, question, method, max_new_tokens: as for `refer`.
        regions: of each question: one region, or several that belong together.
        max_copies: how many are one batch at most; the memory of a step grows with it.
        progress: where it takes more than two seconds, say so.

    Raises:
        SettingsError: for no regions, and as `refer` does.
        ImageError, PromptError, RegionError, OptimizationError: as `refer` does.

    Examples:
        >>> both = cm.refer_each(mllm, scene.image, "describe the object.", [box, cm.Point(20, 20)], cm.ControlMLLMPlus())
        >>> [str(outcome.answer) for outcome in both]
        ['red cross at the right', 'blue zero at the center']
    """
    require(mllm)
    given = given_method(method, ControlMLLM())
    what = "regions must be several, each a region or regions that belong together, as [Box(8, 8, 40, 40), Point(20, 20)]"
    each = several(regions, what)
    if not each:
        raise SettingsError(f"{what}; got none.")
    most = whole_number(max_copies, "max_copies", 1, MOST_COPIES)
    if not isinstance(image, Look | Seen | Video | Conversation) and not is_messages(image):
        # What the model sees of it is the same for all.
        image = Seen(mllm, image)
    user = Asked.of(image, question)
    places = [user.regions(one) for one in each]
    outcomes: list[Outcome] = []
    with waiting(f"referring to {len(each)} regions by {given.called()}", flag(progress, "progress")):
        with measured(mllm.device) as before:
            resolved = given.resolve(mllm)
            shared = _shared(mllm, user, places, resolved)
        for first in range(0, len(each), 1 if shared is None else most):
            part = places[first : first + most]
            if shared is None:
                outcomes.append(
                    refer(mllm, image, question, part[0], resolved, max_new_tokens=max_new_tokens, progress=False)
                )
            else:
                outcomes += _together(mllm, user, *shared, part, max_new_tokens, before.seconds / len(each))
            if outcomes[-1].interrupted:
                break
    return tuple(outcomes)


def _shared(
    mllm: Mllm, user: Asked, places: Sequence[tuple[Region, ...]], method: Method
) -> tuple[LatentMethod, Prompt] | None:
    """The method and the one prompt that it sends for all regions; None where they are not to be one batch."""
    if not isinstance(method, LatentMethod) or method.contrast_decoding is not None or user.conversation is not None:
        return None
    if not (mllm.family.batch and mllm.family.tested) or len(places) < 2:
        return None
    asked = [user.sent(method, place, mllm) for place in places]
    first = asked[0][0]
    if any(one.question != first.question or one.image is not first.image for one, _ in asked):
        return None
    return method, first.prepared(mllm)


def _together(
    mllm: Mllm,
    user: Asked,
    method: LatentMethod,
    prompt: Prompt,
    places: Sequence[tuple[Region, ...]],
    max_new_tokens: int,
    before: float,
) -> list[Outcome]:
    """Outcomes of one batch; `before` is each one's part of the seconds that were spent on all."""
    with measured(mllm.device) as cost:
        traces = optimize_each(mllm, prompt, places, method)
        answers = answers_each(mllm, prompt, [trace.intervention for trace in traces], max_new_tokens)
    return [
        Outcome(
            answer=answer,
            method=method,
            regions=place,
            question=user.question,
            size=user.image.size,
            sent=Sent.of(prompt.image, prompt.question, prompt.text, place, prompt.conversation),
            intervention=trace.intervention,
            trace=trace,
            seconds=before + cost.seconds / len(places),
            peak_memory=cost.peak_memory,
            provenance=Provenance.of(mllm),
        )
        for answer, place, trace in zip(answers, places, traces, strict=True)
    ]


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
