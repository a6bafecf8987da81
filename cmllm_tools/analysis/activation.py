"""Maps of what visual states hold of one token of the answer: token activation maps, and Grad-CAM."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from ..attention.context_map import ContextMap
from ..attention.context_token import existing
from ..attention.key_offsets import KeyOffsets
from ..errors import CaptureError, PromptError, UnsupportedModelError
from ..layout.neighbours import neighbourhoods
from ..layout.visual_tokens import VisualTokenLayout
from ..models.batch import answer_of, followed_by
from ..models.changing import ChosenBy
from ..models.finite import check_logits
from ..models.gradient import computes_in_half
from ..models.gradient import gradients as gradients_of
from ..models.interventions import Intervention
from ..models.latent import Latent, read_latent_or_other
from ..models.latent_states import latent_added
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.residual import INPUT, changed_outputs
from ..models.scoring import answer_logits
from ..models.undisturbed import unaffected, undisturbed
from ..strict import flag, shown, whole_number


@unaffected(gradient=False)
def token_activation(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | Sequence[int] | None = None,
    *,
    token: int = 0,
    context: bool = True,
    smooth: bool = True,
    latent: Intervention | Latent | None = None,
) -> ContextMap:
    """Token activation map (TAM): what visual tokens' last states hold of one token of the answer.

    The activation of a visual token is the logit that the model's head gives the explained token there, where positive. Of
    it is taken what the context explains ("estimated causal inference"): the mean of the activations of the question's and
    the answer's earlier tokens, each weighted by how much the explained token is activated at it (at a question's token
    itself, where an answer's is picked), times the factor that leaves the least squares; tokens that are the same as the
    explained one are not counted. Then each 3 x 3 window is sorted, and averaged by a Gaussian around its median that is
    as wide as the window's deviation, as a share of its mean ("rank Gaussian filter"). Li et al., arXiv 2506.23270.

    It shows something where the model's visual tokens hold words in their last states, as those of large models trained on
    text first do; the embedded model's hold colours, and no shapes. One forward, whose logits of all tokens are held.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: text or token ids; the model's own when None.
        token: which of its tokens is explained, by its number.
        context: take off what the context explains; without, it is the plain activation.
        smooth: filter the map.
        latent: (visual token, width) added to the visual tokens, or what else is done to the model; see `Mllm.generate`.

    Returns:
        The map (visual token,): each one's share of the activation of all visual and context tokens; its words are the
        token explained. It is 0 everywhere where the context explains all of it.

    Raises:
        UnsupportedModelError: for a model whose head is not applied to the visual tokens' states.
        PromptError: for an answer without that token.
        CaptureError: for a latent of another shape, and offsets on cached keys.
        NotFiniteError: for logits that are not finite.

    Examples:
        >>> cmap = cm.analysis.token_activation(mllm, prompt, token=1)
        >>> cmap.words, cmap.values.shape  # of the model's own answer; (visual token,)
        (('zero',), torch.Size([64]))
    """
    require(mllm, prompt)
    ids = explained(mllm, prompt, answer, token, latent)
    values = activations(mllm, prompt, ids, [len(ids) - 1], context, smooth, latent)[0]
    return ContextMap(values, prompt.layout, mllm.words(ids[-1:]), prompt.image)


@unaffected(gradient=False)
def activations(
    mllm: Mllm,
    prompt: Prompt,
    ids: Sequence[int],
    tokens: Sequence[int],
    context: bool = True,
    smooth: bool = True,
    given: Intervention | Latent | None = None,
) -> torch.Tensor:
    """(token, visual token): `token_activation` of several tokens, by their numbers among an answer's, in one forward."""
    context, smooth = flag(context, "context"), flag(smooth, "smooth")
    _check_head(mllm)
    followed = followed_by(mllm, prompt, ids)
    with undisturbed(mllm.model), _with(mllm, followed, given):
        logits = answer_logits(mllm, followed.inputs, None)[0]
    if len(logits) != len(followed.tokens):
        raise _no_head(mllm, f"it gives {len(logits)} logits for {len(followed.tokens)} tokens")
    # Where each context token is told from: a question's at its own place, an answer's where it is picked.
    text, picked = list(prompt.text_span), range(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(ids))
    said = [*followed.inputs["input_ids"][0, text].tolist(), *ids]
    visual, places = logits[list(prompt.visual)], logits[[*text, *picked]]
    for each in (visual, places):
        check_logits(each, mllm.model.dtype)
    # (visual or context token, class), each context token being a class.
    visual, places = (each[:, said].double().clamp_min(0) for each in (visual, places))
    maps = []
    for number in (len(text) + token for token in tokens):
        found, weights = visual[:, number], places[:number, number]
        if context:
            other = [weight if one != said[number] else 0 for one, weight in zip(said, weights.tolist(), strict=False)]
            found = _less(found, visual[:, :number] @ torch.tensor(other).to(found))
        if smooth:
            found = _rank_gaussian(found, prompt.layout)
        maps.append(found / (found.sum() + weights.sum()).clamp_min(torch.finfo(found.dtype).tiny))
    return torch.stack(maps).float()


@unaffected(gradient=True)
def grad_cam(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | Sequence[int] | None = None,
    *,
    token: int = 0,
    layer: int = INPUT,
    latent: Intervention | Latent | None = None,
) -> ContextMap:
    """Grad-CAM on visual states: those that, along the mean gradient, speak for one token of the answer.

    `ReLU(A w)`, A being the visual tokens' states after a layer, and w (width,) the mean over visual tokens of the gradient
    there of the explained token's logit (Selvaraju et al., arXiv 1610.02391, equations 1 and 2, with visual tokens as
    places and the states' width as channels).

    One forward of the whole model and one backward pass.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: text or token ids; the model's own when None.
        token: which of its tokens is explained, by its number.
        layer: after which the states are taken; -1 for what goes into the language model. Not the last, after which no
            other token sees them.
        latent: (visual token, width) added to the visual tokens, or what else is done to the model; see `Mllm.generate`.

    Returns:
        The map (visual token,): each one's share of what speaks for the token; its words are the token explained. It is 0
        everywhere where nothing does.

    Raises:
        PromptError: for an answer without that token.
        CaptureError: for a layer that there is not, or one whose states of visual tokens are not known; a latent of another
            shape, and offsets on cached keys.
        NotFiniteError: for logits that are not finite.

    Examples:
        >>> cmap = cm.analysis.grad_cam(mllm, prompt, "red cross", token=1)
        >>> cmap.words, f"{cm.region_share(cmap, box):.0%}"
        (('cross',), '73%')
    """
    require(mllm, prompt)
    ids = explained(mllm, prompt, answer, token, latent)
    values = cams(mllm, prompt, ids, [len(ids) - 1], layer, latent)[0]
    return ContextMap(values, prompt.layout, mllm.words(ids[-1:]), prompt.image)


@unaffected(gradient=True)
def cams(
    mllm: Mllm,
    prompt: Prompt,
    ids: Sequence[int],
    tokens: Sequence[int],
    layer: int = INPUT,
    given: Intervention | Latent | None = None,
) -> torch.Tensor:
    """(token, visual token): `grad_cam` of several tokens, by their numbers among an answer's, in one forward."""
    changed = _layer(mllm, layer)
    followed = followed_by(mllm, prompt, ids)
    latent, other = read_latent_or_other(given, prompt.call)
    # Something has to require a gradient for a graph to be kept, as the model's own weights do not.
    start = prompt.zero_latent() if latent is None else latent.detach().clone().requires_grad_()
    kept = [start]

    def keep(states: torch.Tensor) -> torch.Tensor:
        kept[:] = [states]
        return states

    with (
        undisturbed(mllm.model, gradient=True),
        _with(mllm, followed, other),
        latent_added(followed.call, start),
        changed_outputs(dict.fromkeys(changed, keep)),
    ):
        logits = answer_logits(mllm, followed.inputs, len(ids))[0]
    check_logits(logits, mllm.model.dtype)
    half = computes_in_half(mllm.model)
    values = [logits[token, ids[token]] for token in tokens]
    pulls = [gradients_of(each, kept, half, retain_graph=each is not values[-1])[0] for each in values]
    with unaffected(gradient=False):
        states = kept[0].detach()
        if changed:
            states, pulls = states[0, list(prompt.visual)], [each[0, list(prompt.visual)] for each in pulls]
        else:
            states = prompt.call.visual_states + states.to(prompt.call.visual_states)
        maps = (torch.stack(pulls).float().mean(1) @ states.float().T.to(pulls[0].device)).clamp_min(0)
        return maps / maps.sum(-1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


@contextmanager
def _with(mllm: Mllm, prompt: Prompt, given: Intervention | Latent | None) -> Iterator[None]:
    """While open, the prompt is read with an intervention or a latent."""
    latent, other = read_latent_or_other(given, prompt.call)
    other = other.read(mllm, prompt) if isinstance(other, ChosenBy) else other
    _check_whole(mllm, other)
    added = None if latent is None else latent.detach()
    with nullcontext() if other is None else other.opened(mllm, prompt), latent_added(prompt.call, added):
        yield


def explained(
    mllm: Mllm, prompt: Prompt, answer: str | Sequence[int] | None, token: int, given: Intervention | Latent | None
) -> list[int]:
    """The answer's tokens up to the one that is explained."""
    token = whole_number(token, "The number of an answer's token", 0, error=PromptError)
    said = mllm.generate(prompt, given, max_new_tokens=token + 1) if answer is None else answer
    ids = list(answer_of(mllm, said).ids)
    if token >= len(ids):
        raise PromptError(
            f"The explained token must be one of the answer's {len(ids)}, numbered from 0; got {token} of "
            f"{shown(str(said))}."
        )
    return ids[: token + 1]


def check_held(mllm: Mllm, prompt: Prompt, given: Intervention | Latent | None, head: bool) -> None:
    """Refuse maps of what states hold, before anything is run; `head` for those that need the model's.

    Raises:
        CaptureError, UnsupportedModelError: as `token_activation` and `grad_cam`.
    """
    if head:
        _check_head(mllm)
    _check_whole(mllm, read_latent_or_other(given, prompt.call)[1])


def _check_whole(mllm: Mllm, given: Intervention | None) -> None:
    if isinstance(given, KeyOffsets) and not mllm.family.beside:
        raise CaptureError(
            "A map of what states hold needs the whole prompt run; with offsets on cached keys its image is not. Use "
            "attention in its place (maps='attention', or capture_attention with latent=), or another intervention."
        )


def _check_head(mllm: Mllm) -> None:
    if mllm.family.beside:
        raise _no_head(mllm, f"they are seen by {mllm.family.way_in}")


def _no_head(mllm: Mllm, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "A token activation map needs a head that is applied to the visual tokens' last states; that of "
        f"{mllm.family.name} is not: {reason}. Use grad_cam, or attention."
    )


def _layer(mllm: Mllm, layer: int) -> list[torch.nn.Module]:
    """The layer after which states are taken; none for what goes into the first."""
    beside = mllm.family.beside
    layers = [] if beside else mllm.family.layer_modules(mllm.model)
    number = whole_number(layer, "A layer", error=CaptureError)
    if beside and number != INPUT:
        raise CaptureError(
            f"The visual tokens of {mllm.family.name} are no part of the text's sequence ({mllm.family.way_in}), so that "
            f"only their states before it are known; got layer {number}. Give layer=-1."
        )
    if mllm.family.stream and number != INPUT:
        raise CaptureError(
            f"The states of {mllm.family.name} after a layer are not one for each token: {mllm.family.stream}; got layer "
            f"{number}. Give layer=-1."
        )
    existing([number], range(INPUT, max(len(layers) - 1, 0)), "A layer before the last")
    return [] if number == INPUT else [layers[number]]


def _less(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Values less another map, times the factor that leaves the least squares; 0 where that is more."""
    square = other @ other
    factor = (values @ other) / square if square > 0 else square
    return (values - factor * other).clamp_min(0)


def _rank_gaussian(values: torch.Tensor, layout: VisualTokenLayout) -> torch.Tensor:
    """A map filtered by rank: of each token's 3 x 3 window, sorted, a mean around the median."""
    around = torch.from_numpy(neighbourhoods(layout)).to(values.device)
    windows = values[around].sort(-1).values
    mean = windows.mean(-1)
    # Of a window that is the same everywhere, the median alone.
    width = (windows.std(-1, correction=0) / mean.clamp_min(torch.finfo(values.dtype).tiny)).clamp_min(1e-3)
    rank = torch.arange(9, dtype=values.dtype, device=values.device) - 4
    kernel = (-rank.square() / (2 * width[:, None].square())).exp()
    return (windows * kernel).sum(-1) / kernel.sum(-1)
