"""Heads silenced, at zero or at what they draw in the mean, and what becomes of the answer."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Literal

import torch

from ..attention.context_token import existing
from ..attention.heads import Heads, as_heads
from ..attention.observe import observed
from ..errors import CaptureError
from ..models.batch import MAX_COPIES
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected, undisturbed
from ..strict import one_of, shown
from .cells import Cells, MakeEdit, measure_edits
from .edits import HeadOutputs, HeadsPut, PutIn, where_of
from .grid import CauseGrid
from .scored import Change, MeasuredPrompt
from .tokens import Places, Tokens, queries_of, tokens_text


@unaffected(gradient=False)
def ablate(
    mllm: Mllm,
    prompt: Prompt,
    heads: Heads,
    *,
    how: Literal["zero", "mean"] = "zero",
    tokens: Tokens = "all",
    answer: str | Sequence[int] | None = None,
    candidates: Sequence[str] = (),
) -> Change:
    """Silence heads together, and see what becomes of the answer.

    Args:
        mllm, prompt, answer, candidates: as for `knockout`.
        heads: (layer, head) pairs; or numbers, of every layer that looks at visual states.
        how: what a head gives in place of what it draws, before its layer mixes the heads: "zero", or its "mean" over the
            prompt's tokens.
        tokens: where; as `from_` of `knockout`.

    Returns:
        The measure before and after, with the `HeadsPut` that does it.

    Raises:
        CaptureError, PromptError, RegionError, SettingsError: as `knockout`.

    Examples:
        >>> change = cm.causes.ablate(mllm, prompt, [(5, 5)], candidates=two)
        >>> print(f"{change.difference:+.1f} nats")
        +1.7 nats
    """
    require(mllm, prompt)
    one_of(how, "how", ("zero", "mean"))
    found: Any = as_heads(heads)
    if not found:
        raise CaptureError(f"At least one head must be silenced; got {shown(heads)}.")
    pairs: Any = found if isinstance(found[0], tuple) else where_of(mllm, None, found)
    existing([layer for layer, _ in pairs], mllm.attention_layers, "Layers")
    existing([head for _, head in pairs], range(mllm.heads), "Heads")
    rows = queries_of(mllm, prompt, tokens)
    values = _put_values(mllm, prompt, how, {layer for layer, _ in pairs})
    scored = MeasuredPrompt(mllm, prompt, answer, candidates, first=rows.first)
    after = measure_edits(mllm, scored, _silencing(mllm, rows, values), [pairs])[0]
    each = [values[layer][head] for layer, head in pairs]
    if len({len(value) for value in each}) > 1:
        raise CaptureError("Heads that are silenced together must be of one width; those of these layers are not.")
    words = ", ".join(f"({layer}, {head})" for layer, head in pairs[:4]) + (" ..." if len(pairs) > 4 else "")
    put = HeadsPut(torch.stack(each), pairs, rows.positions, rows.onwards)
    what = f"heads {words} at {'zero' if how == 'zero' else 'their mean'} at {tokens_text(tokens)}"
    return Change(what, scored.measure, scored.texts, scored.before, after, put)


@unaffected(gradient=False)
def ablate_grid(
    mllm: Mllm,
    prompt: Prompt,
    *,
    how: Literal["zero", "mean"] = "zero",
    tokens: Tokens = "all",
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
    """`ablate` of each head by itself, or of the heads of windows of layers; arguments as for `knockout_grid`.

    Raises:
        CaptureError, PromptError, RegionError, SettingsError, DataError, OutputError: as `knockout_grid`.

    Examples:
        >>> grid = cm.causes.ablate_grid(mllm, prompt, layers=[0, 5], candidates=two, progress=False)
        >>> grid.values.shape
        (2, 6)
    """
    require(mllm, prompt)
    one_of(how, "how", ("zero", "mean"))
    rows = queries_of(mllm, prompt, tokens)
    chosen = Cells(mllm, layers, heads, together, window, step)
    values = _put_values(mllm, prompt, how, {layer for each in chosen.windows for layer in each})
    scored = MeasuredPrompt(mllm, prompt, answer, candidates, first=rows.first)
    what = f"heads at {'zero' if how == 'zero' else 'their mean'} at {tokens_text(tokens)}, each by itself"
    run = {"put": [rows.positions, rows.onwards, how]}
    return chosen.grid(scored, what, _silencing(mllm, rows, values), max_copies, path, run, progress)


def _silencing(mllm: Mllm, rows: Places, values: dict[int, torch.Tensor]) -> MakeEdit:
    return lambda cells, prompt: PutIn(cells, rows, values, mllm, prompt)


def _put_values(mllm: Mllm, prompt: Prompt, how: str, layers: set[int]) -> dict[int, torch.Tensor]:
    """What heads are put at: (head, width) of each layer."""
    if how == "zero":
        return {layer: torch.zeros(mllm.heads, 1) for layer in layers}
    prompt.check(mllm, replayed=True)
    means = HeadOutputs(lambda drawn: drawn.mean(0))
    with undisturbed(mllm.model), observed(mllm, means):
        prompt.call.replay()
    return means.found
