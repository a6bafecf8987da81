"""The tokens of an answer one by one: a small map of each, its share in the regions, and the chosen one's map large."""

from typing import Any

import numpy as np
import traitlets

from ..causes.answering import AnswerTrace
from ..errors import PromptError
from ..inputs.regions import where_text
from ..notation import layers_text, number_ranges
from ..shown import one_line
from ..strict import kind_of, shown, whole_number
from .modules import script, style
from .picture import MapWidget, base64_of, page, picture_data

# Heads that are named for each token.
_HEADS = 3


class AnswerStrip(MapWidget):
    """A strip of small maps, one for each token of an answer, to step through; it only reads the trace.

    Everything is sent to the browser once, so that stepping needs no kernel. Keys: left and right, home and end.

    Args:
        trace: from `cm.trace_answer`.
        token: shown first, as its number in the answer; negative counts from the end.

    Raises:
        PromptError: for something else, or a token that there is not.

    Examples:
        >>> strip = cm.widgets.AnswerStrip(cm.trace_answer(mllm, prompt, regions=box))
        >>> strip.token = 1
        >>> strip.trace.words[strip.token]
        'zero'
    """

    _esm = script("answer_strip")
    _css = style("picture", "answer_strip")

    data = traitlets.Dict().tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)

    def __init__(self, trace: AnswerTrace, token: int = 0, **options: Any):
        self.trace = kind_of(trace, AnswerTrace, "A strip's trace must be one from cm.trace_answer", PromptError)
        token = whole_number(token, "The strip's token", error=PromptError)
        super().__init__(data=strip_data(trace), token=token, **options)

    def __repr__(self) -> str:
        return one_line("AnswerStrip", [("token", f"{self.token} {self.trace.words[self.token]!r}"), *self.trace.facts()])

    def to_html(self) -> str:
        """One page that opens from disk without a network, at the token shown now."""
        return page("answer_strip", str(self.trace.answer), self._static(), {"data": self.data, "token": self.token})

    def _static(self) -> str:
        return self.trace._repr_html_()

    @traitlets.validate("token")
    def _check_token(self, proposal: Any) -> int:
        token, count = proposal["value"], len(self.trace)
        if not -count <= token < count:
            raise PromptError(
                f"The strip's token must lie in {-count}..{count - 1}, as the answer has {count}; got {shown(token)}."
            )
        return int(token % count)


def strip_data(trace: AnswerTrace) -> dict[str, Any]:
    """What the browser needs of a trace, as plain JSON data.

    Maps are uint16 in base64, each scaled to its highest value; `peak` is that value, in percent of what is on the image.
    """
    tokens: list[dict[str, Any]] = []
    # Where each stands in the answer is known of what a model said; a text that was given has tokens alone.
    spans = [_visible(trace.answer, piece.begin, piece.end) for piece in trace.answer.pieces]
    spans = spans if len(spans) == len(trace) else [(0, 0)] * len(trace)
    for number, word in enumerate(trace.words):
        on_image = trace.on_image[number].item()
        grid = 100 * trace.layout.raster(trace.maps[number].numpy()).astype(float) / max(on_image, 1e-30)
        peak = max(float(grid.max()), 1e-30)
        tokens.append(
            {
                "text": word,
                "span": list(spans[number]),
                "map": base64_of(np.round(grid / peak * 65535).astype("<u2")),
                "peak": peak,
                "on_image": on_image,
                "shares": trace.shares[number].tolist(),
                "heads": [[layer, head, value] for layer, head, value in trace.top_heads(number, _HEADS)],
            }
        )
    heads = "chosen heads" if trace.pairs else f"heads {number_ranges(trace.heads)}"
    return {
        **picture_data(trace.image, trace.layout, trace.regions, trace.of),
        "answer": str(trace.answer),
        "where": where_text(trace.regions) if trace.regions else "",
        "mean": f"mean over {layers_text(trace.layers)}, {heads}" if trace.of == "attention" else "",
        "tokens": tokens,
    }


def _visible(text: str, begin: int, end: int) -> tuple[int, int]:
    """A part of a text without the space that many tokens begin with."""
    return begin + len(text[begin:end]) - len(text[begin:end].lstrip()), end
