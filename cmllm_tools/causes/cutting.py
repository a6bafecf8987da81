"""Does it need to look? Attention from some tokens to some others forbidden, and what becomes of the answer."""

from collections.abc import Iterable, Sequence
from os import PathLike

from ..attention.context_token import existing
from ..errors import CaptureError
from ..models.batch import MAX_COPIES
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected
from ..notation import layers_text, number_ranges
from .cells import Cells, measure_edits
from .edits import AttentionCut, KnockOut, Where, where_of
from .grid import CauseGrid
from .scored import Change, MeasuredPrompt
from .tokens import Places, Tokens, keys_of, queries_of, tokens_text


@unaffected(gradient=False)
def knockout(
    mllm: Mllm,
    prompt: Prompt,
    from_: Tokens = "after_image",
    to: Tokens = "image",
    *,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    answer: str | Sequence[int] | None = None,
    candidates: Sequence[str] = (),
) -> Change:
    """Forbid attention from some tokens to some others, and see what becomes of the answer.

    Their logits are hidden before the softmax, so that what is left is divided among the other keys (attention knockout,
    Geva et al., arXiv 2304.14767); a token that is left with nothing to look at draws nothing. Where layers mix tokens in
    other ways (linear attention, a cross-attending model's own text), those go on.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        from_: the tokens that may not look: "text" (the question's), "after_image" and "all" (with the answer's
            tokens), "image", "before_image", "last" (the prompt's last), "answering" (that one and the answer's), a word, a
            position, several of these two; or regions, whose visual tokens are meant.
        to: the tokens that they may not look at, likewise.
        layers: numbers; all that look at visual states when None.
        heads: numbers; all when None.
        answer: whose log-probability is measured: a text, token ids or a model's answer; its own, unchanged one when None.
        candidates: two answers or more: the log-odds of the first against the others is measured, in the answer's place.

    Returns:
        The measure before and after, with the `AttentionCut` that does it: an intervention, to answer with.

    Raises:
        CaptureError: for tokens, layers or heads that do not exist or do not look, and where no attention is to forbid.
        PromptError: for a word that is not in the question, or a prompt of another model.
        RegionError: for a region the model does not see.
        SettingsError: for an answer beside candidates, or one candidate alone.

    Examples:
        >>> change = cm.causes.knockout(mllm, prompt, "last", box, candidates=two)
        >>> print(f"{change.before:.1f} to {change.after:.1f} nats")
        -0.0 to -6.5 nats
        >>> unsteered, blind = mllm.generate(prompt), mllm.generate(prompt, change.intervention)
    """
    require(mllm, prompt)
    cut = cut_of(mllm, prompt, from_, to, layers, heads)
    rows = Places(cut.queries, cut.onwards)
    scored = MeasuredPrompt(mllm, prompt, answer, candidates, first=rows.first)
    knocking = _Knocking(mllm, rows, cut.keys)
    after = measure_edits(mllm, scored, knocking, [where_of(mllm, cut.layers, cut.heads)])[0]
    knocking.check()
    return Change(
        f"{_cut_text(from_, to)} in {layers_text(cut.layers)}"
        + ("" if cut.heads is None else f", heads {number_ranges(cut.heads)}"),
        scored.measure,
        scored.texts,
        scored.before,
        after,
        cut,
    )


def cut_of(
    mllm: Mllm,
    prompt: Prompt,
    from_: Tokens,
    to: Tokens,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> AttentionCut:
    """What `knockout` does, without what becomes of an answer; arguments and errors are its own."""
    rows, keys = queries_of(mllm, prompt, from_), keys_of(mllm, prompt, to)
    numbers = mllm.attention_layers if layers is None else existing(layers, mllm.attention_layers, "Layers")
    chosen = None if heads is None else existing(heads, range(mllm.heads), "Heads")
    return AttentionCut(rows.positions, keys, rows.onwards, tuple(numbers), chosen)


@unaffected(gradient=False)
def knockout_grid(
    mllm: Mllm,
    prompt: Prompt,
    from_: Tokens = "after_image",
    to: Tokens = "image",
    *,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    together: bool = False,
    window: int = 1,
    step: int = 1,
    answer: str | Sequence[int] | None = None,
    candidates: Sequence[str] = (),
    max_copies: int = MAX_COPIES,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> CauseGrid:
    """`knockout` of each layer and head by itself, or of windows of layers, several in one batch.

    What a knockout leaves as it is, the tokens before and the layers below, is computed once. With a `path`, each value is
    a line of the file before the next is begun, and the same call goes on after whatever ended it. An interrupt ends it
    with what there is.

    Args:
        mllm, prompt, from_, to, answer, candidates: as for `knockout`.
        layers: numbers of the layers that windows are taken from; all that look at visual states when None.
        heads: numbers, a column each; all when None.
        together: whether all these heads are knocked out at once, and there is one column.
        window: how many of the layers in a row are knocked out at once.
        step: how many layers further each window begins; the last one is shorter where fewer are left.
        max_copies: how many are run in one batch at most.
        path: file of the values, JSON lines.
        progress: whether a bar is shown.

    Raises:
        CaptureError, PromptError, RegionError, SettingsError: as `knockout`.
        DataError: for a file of another run.
        OutputError: when the file cannot be written, or another process writes it.

    Examples:
        >>> grid = cm.causes.knockout_grid(mllm, prompt, to=box, candidates=two, path="knockouts.jsonl", progress=False)
        >>> [(layer, head, round(change, 1)) for layer, head, change in grid.strongest(1)]
        [('4', '0', -5.8)]
    """
    require(mllm, prompt)
    rows, keys = queries_of(mllm, prompt, from_), keys_of(mllm, prompt, to)
    chosen = Cells(mllm, layers, heads, together, window, step)
    scored = MeasuredPrompt(mllm, prompt, answer, candidates, first=rows.first)
    what = f"{_cut_text(from_, to)}, each by itself"
    run = {"cut": [rows.positions, rows.onwards, keys]}
    knocking = _Knocking(mllm, rows, keys)
    found = chosen.grid(scored, what, knocking, max_copies, path, run, progress)
    if not found.interrupted:
        knocking.check()
    return found


class _Knocking:
    """Makes knockouts of the same tokens, and remembers them."""

    def __init__(self, mllm: Mllm, rows: Places, keys: Sequence[int]):
        self._mllm, self._rows, self._keys = mllm, rows, keys
        self._made: list[KnockOut] = []

    def __call__(self, cells: Sequence[Where], prompt: Prompt) -> KnockOut:
        self._made.append(KnockOut(cells, self._rows, self._keys, self._mllm, prompt))
        return self._made[-1]

    def check(self) -> None:
        """Refuse a choice of tokens that forbids nothing anywhere, as all that it shows is no effect.

        Raises:
            CaptureError: for such a choice.
        """
        if self._made and not any(each.met for each in self._made):
            raise CaptureError(
                "There must be attention to forbid; none of these tokens can look at any of those. A token looks at what "
                "stands before it."
            )


def _cut_text(from_: Tokens, to: Tokens) -> str:
    return f"no attention from {tokens_text(from_)} to {tokens_text(to)}"
