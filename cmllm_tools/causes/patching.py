"""Activation patching: states of a clean run put into a corrupted one, and how far its answer comes back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch

from ..attention.context_token import existing
from ..attention.observe import AttentionCall, Observer, observed
from ..errors import CaptureError, UnsupportedModelError
from ..models.batch import MAX_COPIES
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.residual import changed_outputs, states_of
from ..models.scoring import OWN_TOKENS
from ..models.undisturbed import unaffected
from ..notation import number_ranges
from ..strict import one_of, shown, whole_number
from .cells import windows_of
from .edits import HeadOutputs
from .grid import CauseGrid, Cell, filled, run_of
from .runs import Runs
from .scored import MeasuredPrompt
from .tokens import ALL, IMAGE, Tokens, queries_of, regions_of, tokens_text, visual_numbers

VISUAL, RESIDUAL, ATTENTION = "visual", "residual", "attention"
_WORDS = {VISUAL: "visual states", RESIDUAL: "the residual stream", ATTENTION: "what attention draws"}


@unaffected(gradient=False)
def patch(
    mllm: Mllm,
    clean: Prompt,
    corrupted: Prompt,
    where: Literal["visual", "residual", "attention"] = "residual",
    *,
    tokens: Tokens | Mapping[str, Tokens] = "all",
    source: Tokens | None = None,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    window: int = 1,
    step: int = 1,
    answer: str | Sequence[int] | None = None,
    candidates: Sequence[str] = (),
    max_copies: int = MAX_COPIES,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> CauseGrid:
    """Put states of a clean run into a corrupted one, and see how far its answer comes back (after arXiv 2202.05262).

    Both prompts have the same words, and images that fill as many visual tokens: another image, or the same one with a
    region changed. `CauseGrid.effect` is 0 where a patch does nothing, and 1 where it brings back what the clean run says.

    Args:
        mllm: the model that prepared the prompts.
        clean: whose states are taken.
        corrupted: that they are put into.
        where: "visual", the visual tokens as they reach the text; "residual", the residual stream after a layer;
            "attention", what heads draw, before their layer mixes them.
        tokens: which are patched, as `from_` of `knockout`; or several such choices by name, a column each. With "visual",
            "image" or regions.
        source: the tokens of the clean prompt that the states are taken of, as many; the same as they are put at when None.
        layers: numbers, a row each; all when None. With "attention" those that look at visual states.
        heads: with "attention", numbers, a column each, for one choice of tokens; all of them together when None.
        window, step: see `knockout_grid`.
        answer: whose log-probability is measured; what the clean prompt is answered when None.
        candidates, max_copies, path, progress: see `knockout_grid`.

    Raises:
        CaptureError: for prompts that do not fit each other, tokens, layers or heads that do not exist, or heads where no
            attention is patched.
        UnsupportedModelError: for a model whose layers' states are not known.
        PromptError, RegionError, SettingsError, DataError, OutputError: as `knockout_grid`.

    Examples:
        >>> gone = scene.image.copy()
        >>> gone.paste("white", tuple(map(int, box.bounds)))
        >>> other, where = mllm.prepare(gone, prompt.question), {"image": "image", "answer": "answering"}
        >>> grid = cm.causes.patch(mllm, prompt, other, tokens=where, candidates=two, progress=False)
        >>> grid.effect[[0, 5]].round(1) + 0  # first and last layer
        array([[1., 0.],
               [0., 1.]])
    """
    require(mllm, clean)
    require(mllm, corrupted)
    one_of(where, "where", tuple(_WORDS))
    _check_alike(clean, corrupted)
    ways = _ways(mllm, clean, corrupted, where, tokens, source, heads)
    windows = _windows(mllm, where, layers, window, step)
    first = 0 if where == VISUAL else min(min(way.to) for way in ways.values())
    if answer is None and not candidates:
        answer = mllm.generate(clean, max_new_tokens=OWN_TOKENS)
    scored = MeasuredPrompt(mllm, corrupted, answer, candidates, first=first)
    patching = _Patching(mllm, where, scored, MeasuredPrompt(mllm, clean, answer, candidates))
    rows, columns = tuple(number_ranges(each) or "-" for each in windows), tuple(ways)
    what = f"{_WORDS[where]} of the clean run put in" + (f", at {tokens_text(tokens)}" if heads is not None else "")
    axes = ("layer", "tokens" if heads is None else "head")
    empty = np.full((len(rows), len(columns)), np.nan)
    texts = tuple(map(str, scored.texts))
    grid = CauseGrid(what, scored.measure, texts, empty, scored.before, rows, columns, axes, patching.clean.before)
    told = run_of(
        corrupted,
        mllm.name,
        clean=run_of(clean, mllm.name),
        ids=[each.ids for each in scored.runs],
        where=where,
        rows=rows,
        ways=[[name, way.to, way.of, way.heads] for name, way in ways.items()],
    )

    def measure(cells: Sequence[Cell]) -> list[float]:
        return patching([(windows[row], ways[columns[column]]) for row, column in cells])

    copies = whole_number(max_copies, "max_copies", 1) if mllm.family.batch else 1
    firsts = [each[0] if each else 0 for each in windows]
    return filled(grid, firsts, measure, copies=copies, path=path, run=told, progress=progress)


@dataclass(frozen=True)
class _Way:
    """What is put where.

    Args:
        to: positions in the corrupted prompt, ascending, or numbers of visual tokens; those of the answer's tokens follow.
        of: those in the clean one, in the same order.
        onwards: whether the answer's tokens are meant too.
        heads: numbers; all when None.
    """

    to: tuple[int, ...]
    of: tuple[int, ...]
    onwards: bool
    heads: tuple[int, ...] | None = None

    def places(self, runs: Runs) -> tuple[list[int], list[int]]:
        """Both, with the answer's tokens."""
        total = len(runs.answered.tokens)
        answer = list(range(total - runs.answered.answered, total)) if self.onwards else []
        return [*self.to, *answer], [*self.of, *answer]


_Patch = tuple[tuple[int, ...], _Way]


class _Patching:
    """Measures copies of the corrupted prompt, each with states of the clean one put in."""

    def __init__(self, mllm: Mllm, where: str, scored: MeasuredPrompt, clean: MeasuredPrompt):
        self.mllm, self.where, self.scored, self.clean = mllm, where, scored, clean
        self._clean = dict(zip(scored.runs, clean.runs, strict=True))
        self._drawn: dict[Runs, dict[int, torch.Tensor]] = {}

    def __call__(self, patches: Sequence[_Patch]) -> list[float]:
        if self.where == VISUAL:
            return self.scored(len(patches), latent=self._latents([way for _, way in patches]))
        # What a layer gives is patched after it, and what attention draws within.
        return self.scored(len(patches), lambda runs: lambda: self._opened(runs, patches), min(p[0][0] for p in patches))

    def _latents(self, ways: Sequence[_Way]) -> torch.Tensor:
        """(copy, visual token, width): what makes visual states of the corrupted prompt those of the clean one."""
        source, target = self.clean.runs[0].answered.call.visual_states, self.scored.runs[0].answered.call.visual_states
        found = target.new_zeros(len(ways), *target.shape)
        for copy, way in enumerate(ways):
            found[copy, list(way.to)] = source[list(way.of)] - target[list(way.to)]
        return found

    def _opened(self, runs: Runs, patches: Sequence[_Patch]) -> AbstractContextManager[Any]:
        layers = {layer for window, _ in patches for layer in window}
        total = runs.answered.learned or len(runs.answered.tokens)
        if self.where == ATTENTION:
            observer = _Put(patches, runs, total, self._drawn_of(runs))
            modules = {module: layer for module, layer in self.mllm.attention_modules.items() if layer in layers}
            return observed(self.mllm, observer, modules)
        outputs = self._outputs(runs)

        def putting(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
            def put(states: torch.Tensor) -> torch.Tensor:
                states = states.clone()
                for copy, (window, way) in enumerate(patches):
                    if layer in window:
                        to, of = _there(way.places(runs), total, states.shape[1], len(outputs[layer]))
                        states[copy, to] = outputs[layer][of].to(states)
                return states

            return put

        return changed_outputs({runs.layers[layer]: putting(layer) for layer in layers})

    def _outputs(self, runs: Runs) -> dict[int, torch.Tensor]:
        """(token, width) of each layer in the clean run."""
        try:
            return {number: states_of(output)[0] for number, output in self._clean[runs].outputs.items()}
        except UnsupportedModelError as error:
            raise UnsupportedModelError(
                f"The residual stream of {self.mllm.family.name} cannot be patched: {error}"
            ) from error

    def _drawn_of(self, runs: Runs) -> dict[int, torch.Tensor]:
        """(token, head, width) of each layer in the clean run."""
        if runs not in self._drawn:
            drawn = HeadOutputs()
            self._clean[runs](1, lambda: observed(self.mllm, drawn))
            self._drawn[runs] = drawn.found
        return self._drawn[runs]


class _Put(Observer):
    """Puts what heads drew in another run into each copy, where its patch says."""

    def __init__(self, patches: Sequence[_Patch], runs: Runs, total: int, drawn: Mapping[int, torch.Tensor]):
        self._patches, self._runs, self._total, self._drawn = patches, runs, total, drawn

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for copy, (window, way) in enumerate(self._patches):
            if call.layer in window:
                drawn = self._drawn[call.layer].to(output)
                to, of = _there(way.places(self._runs), self._total, output.shape[1], len(drawn))
                heads = torch.tensor(range(call.heads) if way.heads is None else way.heads, device=output.device)
                output[copy, to[:, None], heads] = drawn[of[:, None], heads]
        return output


def _there(
    places: tuple[Sequence[int], Sequence[int]], total: int, rows: int, of_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where tokens are among the last `rows` and `of_rows` of `total`.

    Of those that are run in both: some models give their last layers the last tokens alone.
    """
    to, of = (
        torch.tensor(each, dtype=torch.long) - max(total - count, 0)
        for each, count in zip(places, (rows, of_rows), strict=True)
    )
    run = (to >= 0) & (of >= 0)
    return to[run], of[run]


def _check_alike(clean: Prompt, corrupted: Prompt) -> None:
    """Refuse prompts whose tokens do not stand at the same places."""
    for what, one, other in (
        ("number of tokens", len(clean.tokens), len(corrupted.tokens)),
        ("places of visual tokens", clean.visual, corrupted.visual),
        ("shape of states", clean.call.states.shape, corrupted.call.states.shape),
    ):
        if one != other:
            raise CaptureError(
                f"States can be put from one prompt into another of the same {what}; got {shown(one)} and {shown(other)}. "
                "Give both the same question, and images of the same size."
            )


def _ways(
    mllm: Mllm,
    clean: Prompt,
    corrupted: Prompt,
    where: str,
    tokens: Tokens | Mapping[str, Tokens],
    source: Tokens | None,
    heads: Iterable[int] | None,
) -> dict[str, _Way]:
    """What is put where, by the names of columns."""
    several = isinstance(tokens, Mapping)
    named: Mapping[str, Tokens] = tokens if isinstance(tokens, Mapping) else {tokens_text(tokens): tokens}
    if heads is not None and where != ATTENTION:
        raise CaptureError(f"Heads are patched where='attention'; got where={where!r}. Leave out the heads.")
    if not named or (several and (heads is not None or source is not None)):
        raise CaptureError(
            "Tokens must be one choice where heads are columns, or a source is given, and at least one otherwise; got "
            f"{shown(tokens)}."
        )
    found = {
        name: _way(mllm, clean, corrupted, where, each, each if source is None else source) for name, each in named.items()
    }
    if heads is None:
        return found
    (way,) = found.values()
    return {str(head): _Way(way.to, way.of, way.onwards, (head,)) for head in existing(heads, range(mllm.heads), "Heads")}


def _way(mllm: Mllm, clean: Prompt, corrupted: Prompt, where: str, tokens: Tokens, source: Tokens) -> _Way:
    if where == VISUAL:
        numbers = [_visual(prompt, each) for prompt, each in ((corrupted, tokens), (clean, source))]
        to, of, onwards = numbers[0], numbers[1], False
    else:
        places = queries_of(mllm, corrupted, tokens)
        to, of, onwards = places.positions, queries_of(mllm, clean, source).positions, places.onwards
    if len(to) != len(of):
        raise CaptureError(
            f"States of as many tokens must be taken as are patched, {len(to)}; got {len(of)} of {shown(source)}."
        )
    return _Way(to, of, onwards)


def _visual(prompt: Prompt, tokens: Any) -> tuple[int, ...]:
    """Numbers of the visual tokens that are meant."""
    if isinstance(tokens, str) and tokens in (ALL, IMAGE):
        return tuple(range(len(prompt.visual)))
    regions = regions_of(tokens)
    if not regions:
        raise CaptureError(f"Visual states are those of the 'image' or of regions; got {shown(tokens)}.")
    return visual_numbers(prompt, regions)


def _windows(mllm: Mllm, where: str, layers: Iterable[int] | None, window: int, step: int) -> list[tuple[int, ...]]:
    """The layers of each row; none of visual states."""
    if where == VISUAL:
        if layers is not None:
            raise CaptureError("Visual states are patched before all layers; leave out the layers.")
        return [()]
    known = mllm.attention_layers if where == ATTENTION else tuple(range(len(mllm.family.layer_modules(mllm.model))))
    numbers = known if layers is None else existing(layers, known, "Layers")
    return windows_of(numbers, window, step)
