"""The lens: what a token's state would say after each layer, by the model's own head, or by the nearest input embedding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from ..attention.context_token import existing
from ..errors import CaptureError, UnsupportedModelError
from ..models.batch import Copies
from ..models.finite import check_logits
from ..models.hooks import given_again, in_this_use
from ..models.interrupts import restoring
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.residual import INPUT, kept_outputs, states_of, with_states
from ..models.scoring import answer_logits
from ..models.undisturbed import unaffected, undisturbed
from ..notation import layers_text
from ..shown import Fact, Shown
from ..strict import one_of, shown, whole_number
from .tokens import Tokens, queries_of, tokens_text

# A state's logits may differ by this share of the largest, in another company of states.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}


@dataclass(frozen=True, eq=False, repr=False)
class Lens(Shown):
    """What tokens' states would say after each layer.

    Args:
        how: "logits", by the model's final norm and head; or "embeddings", by the nearest input embedding.
        layers: after which; -1 for what goes into the first.
        positions: of the tokens.
        ids: (layer, token, word), the likeliest tokens of the vocabulary, first the likeliest.
        values: (layer, token, word), the probability of each; with "embeddings" the cosine, -1..1.
        words: as strings, by layer, token and word.
        prompt: what was read.
        what: the tokens, in words.

    Examples:
        >>> found = cm.lens(mllm, prompt, "last")
        >>> found.words[-1][0][0]  # after the last layer, the last token, its likeliest word
        'blue'
        >>> found.values.shape  # what goes in and six layers, one token, five words
        torch.Size([7, 1, 5])
    """

    how: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    ids: torch.Tensor = field(repr=False)
    values: torch.Tensor = field(repr=False)
    words: tuple[tuple[tuple[str, ...], ...], ...] = field(repr=False)
    prompt: Prompt = field(repr=False)
    what: str

    @property
    def visual(self) -> tuple[int, ...]:
        """Numbers of the visual tokens that were read.

        Raises:
            CaptureError: for a lens of other tokens.
        """
        numbers = {position: number for number, position in enumerate(self._visual)}
        if not set(self.positions) <= set(numbers):
            raise CaptureError(
                f"Words stand on the image for its visual tokens; this lens is of {self.what}. Read 'image'."
            )
        return tuple(numbers[position] for position in self.positions)

    def name_of(self, token: int) -> str:
        """The token that was read, as a string: by its number among those.

        Raises:
            CaptureError: for a token that there is not.
        """
        last = len(self.positions) - 1
        position = self.positions[whole_number(token, "The number of a token that was read", 0, last, CaptureError)]
        visual = self._visual
        return f"visual {visual.index(position)}" if position in visual else self.prompt.tokens[position]

    @property
    def _visual(self) -> tuple[int, ...]:
        """Positions in the sequence of the visual tokens; of those beside it, a prompt has positions among the states."""
        return self.prompt.visual if self.prompt.call.site.in_sequence else ()

    def facts(self) -> list[Fact]:
        said = [word for (word, *_) in self.words[-1]]
        often = sorted(set(said), key=said.count, reverse=True)[:4]
        return [
            ("", f"{self.how} of {len(self.positions)} tokens, {self.what}"),
            (
                "after",
                layers_text([layer for layer in self.layers if layer >= 0] or [0]) if max(self.layers) >= 0 else "none",
            ),
            ("at last", ", ".join(map(repr, often))),
        ]


@unaffected(gradient=False)
def lens(
    mllm: Mllm,
    prompt: Prompt,
    tokens: Tokens = "image",
    *,
    layers: Iterable[int] | None = None,
    how: Literal["logits", "embeddings"] = "logits",
    top: int = 5,
) -> Lens:
    """What tokens would say, were each layer the last: the logit lens (nostalgebraist, 2020), or the nearest words.

    A state goes through what follows the last layer in the model's own forward, its norm and head. That these read each
    state by itself is found out, not believed.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        tokens: as `from_` of `causes.knockout`: the "image"'s visual tokens, a region's, the question's ("text"), "last".
        layers: after which; -1 for what goes into the first. All when None.
        how: "logits"; or "embeddings", the words whose input embeddings have the largest cosine with the state.
        top: how many words of each.

    Raises:
        UnsupportedModelError: for a model whose head does not read these states, or whose layers' states are not known.
        CaptureError: for tokens or layers that do not exist.
        PromptError, RegionError: as `causes.knockout`.

    Examples:
        >>> found = cm.lens(mllm, prompt, "image", layers=[3, 5], top=1)
        >>> found.ids.shape  # (layer, visual token, word)
        torch.Size([2, 64, 1])
    """
    require(mllm, prompt)
    one_of(how, "how", ("logits", "embeddings"))
    prompt.check(mllm, replayed=True)
    if prompt.learned or mllm.model.config.is_encoder_decoder:
        raise _refused(
            mllm, f"its states are those of {'learned queries' if prompt.learned else 'an encoder'}, no decoder's"
        )
    positions = list(queries_of(mllm, prompt, tokens).positions)
    reading = _Reading(mllm, prompt)
    known = (INPUT, *range(len(reading.layers)))
    chosen = known if layers is None else existing(layers, known, "Layers")
    if how == "logits":
        reading.check()
        read: Any = partial(_probabilities, reading)
    else:
        read = partial(_cosines, _unit(mllm.model.get_input_embeddings().weight))
    best = [read(reading.states[layer], positions).topk(whole_number(top, "top", 1, _words(mllm)), -1) for layer in chosen]
    ids = torch.stack([each.indices for each in best]).cpu()
    spelled = iter(mllm.words(ids.flatten().tolist()))
    words = tuple(tuple(tuple(next(spelled) for _ in token) for token in layer) for layer in ids)
    values = torch.stack([each.values for each in best]).float().cpu()
    return Lens(how, chosen, tuple(positions), ids, values, words, prompt, tokens_text(tokens))


class _Reading:
    """The states of a prompt after each layer, and what the model's head says of states.

    Attributes:
        states: (token, width), by the layer's number; -1 for what goes into the first.
    """

    def __init__(self, mllm: Mllm, prompt: Prompt):
        self.mllm = mllm
        self.layers = mllm.family.layer_modules(mllm.model)
        self._prompt = Copies(mllm, prompt, keep_before=True).of(1)
        try:
            with (
                undisturbed(mllm.model),
                self._prompt.call.resumed(None),
                kept_outputs(self.layers) as outputs,
                _kept_input(self.layers[0]) as given,
            ):
                self._logits = answer_logits(mllm, self._prompt.inputs, None)[0]
            self._outputs = dict(outputs)
            self.states = {INPUT: given[0]} | {number: states_of(each)[0] for number, each in outputs.items()}
        except UnsupportedModelError as error:
            raise _refused(mllm, str(error)) from error
        if set(outputs) != set(range(len(self.layers))):
            raise _refused(mllm, "not all of its layers are run")

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(token, vocabulary): what the head says of states (token, width) in the last layer's place."""
        last = len(self.layers) - 1
        given = {
            layer: [
                with_states(
                    self._outputs[number],
                    states[None].clone() if number == last else states_of(self._outputs[number]).clone(),
                )
            ]
            for number, layer in enumerate(self.layers)
        }
        with undisturbed(self.mllm.model), self._prompt.call.resumed(None), given_again(given):
            return answer_logits(self.mllm, self._prompt.inputs, None)[0]

    def check(self) -> None:
        """Refuse a model whose head reads more than one state at a time, or something else than the last layer's.

        Raises:
            UnsupportedModelError: naming the family.
        """
        last = self.states[len(self.layers) - 1]
        if len(self._logits) != len(last):
            raise _refused(self.mllm, "it gives logits of other tokens than its layers have")
        check_logits(self._logits, self.mllm.model.dtype)
        most = self._logits.abs().masked_fill(self._logits.isinf(), 0).max() * ROUNDING.get(self.mllm.model.dtype, 0.1)
        for found, expected in ((self.logits(last), self._logits), (self.logits(last.flip(0)), self._logits.flip(0))):
            if not bool(((found - expected).abs().nan_to_num() <= most).all()):
                known = self.mllm.family.head
                raise _refused(self.mllm, known or "what follows its last layer reads more than each state by itself")


@restoring
def _kept_input(layer: Any) -> Iterator[list[torch.Tensor]]:
    """While open, the states (token, width) that a layer is given are kept."""
    found: list[torch.Tensor] = []

    def keep(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = arguments[0] if arguments else named["hidden_states"]
        if not torch.is_tensor(states) or states.dim() != 3:
            raise UnsupportedModelError(f"a layer is given states that are not (prompt, token, width); got {shown(states)}")
        found.append(states[0].detach().clone())

    handle = layer.register_forward_pre_hook(in_this_use(keep), with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def _probabilities(reading: _Reading, states: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """(token, vocabulary)."""
    logits = reading.logits(states)[positions]
    check_logits(logits, reading.mllm.model.dtype)
    return logits.float().softmax(-1)


def _cosines(embeddings: torch.Tensor, states: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """(token, vocabulary); the embeddings are of length 1."""
    return _unit(states[positions].to(embeddings.device)) @ embeddings.T


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def _words(mllm: Mllm) -> int:
    count: int = mllm.model.get_input_embeddings().num_embeddings
    return count


def _refused(mllm: Mllm, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"A lens needs a decoder whose head can be applied to the states after any layer; {mllm.family.name} has none: "
        f"{reason}."
    )
