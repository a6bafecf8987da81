"""Text of any length in a figure. Plotly neither wraps nor cuts it: here it is, by what it is wide at most."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# What lines of a figure's title may be wide, in pixels: a notebook's output is hardly narrower.
TEXT = 540
SIZE, TITLE_SIZE = 13, 14
# Height of a line, and width of a character, as shares of the size: of wide fonts, DejaVu Sans and Verdana.
LINE = 1.3
_WIDTHS = {"iljI.,:;'|! ": 0.4, 'frt()[]/-"': 0.48, "mwMW%@": 1.0, "ABCDEFGHJKLNOPQRSTUVXYZ+=<>&_": 0.8}
_WIDTH_OF = {letter: width for letters, width in _WIDTHS.items() for letter in letters}
_BOLD = 1.13
# Hover texts are as wide as they are long.
_HOVER = 480
ELLIPSIS = "..."


def text_width(text: str, size: float = SIZE) -> float:
    """Pixels that a text takes at most, on one line."""
    return size * sum(_WIDTH_OF.get(letter) or (1.05 if east_asian_width(letter) in "WF" else 0.66) for letter in text)


def wrapped(text: str, width: float, lines: int = 99, size: float = SIZE) -> list[str]:
    """A text as at most `lines` lines of at most `width` pixels; the last ends with an ellipsis where more would follow."""
    done, line = [], ""
    for word in text.split():
        joined = f"{line} {word}".strip()
        if text_width(joined, size) > width and line:
            done.append(line)
            joined = word
        # A word that is too long for a line is broken.
        while text_width(joined, size) > width and len(joined) > 1:
            cut = _fitting(joined, width, size)
            done.append(joined[:cut])
            joined = joined[cut:]
        line = joined
    done += [line] if line or not done else []
    if len(done) > lines:
        last = done[lines - 1]
        done = [*done[: lines - 1], last[: _fitting(last, width - text_width(ELLIPSIS, size), size)] + ELLIPSIS]
    return done


def written(text: str, width: float = TEXT, lines: int = 6, size: float = SIZE, bold: bool = False) -> str:
    """A text that a user or a model wrote, escaped and wrapped for plotly."""
    joined = "<br>".join(escape(line, quote=False) for line in wrapped(text, width / (_BOLD if bold else 1), lines, size))
    return f"<b>{joined}</b>" if bold and joined else joined


def whole(text: str, width: float = TEXT, lines: int = 6, size: float = SIZE, bold: bool = False) -> str | None:
    """The whole text to hover over, where `written` with the same settings leaves some out."""
    if len(wrapped(text, width / (_BOLD if bold else 1), 99_999, size)) <= lines:
        return None
    return written(text, _HOVER, 40)


def line_count(text: str) -> int:
    """Lines of a text for plotly."""
    return text.count("<br>") + 1 if text else 0


def height_of(text: str, size: float = SIZE) -> int:
    """Pixels that a text for plotly is high."""
    return round(line_count(text) * size * LINE)


def head(figure: Figure, text: str, hover: str | None = None) -> int:
    """Set a figure's title, already wrapped; returns the height of the margin that it needs."""
    height = height_of(text, TITLE_SIZE) + 22
    figure.update_layout(title_text=text)
    if hover:
        # A title has no hover text: an empty note lies over it.
        figure.add_annotation(
            text=" ",
            hovertext=hover,
            captureevents=True,
            showarrow=False,
            width=TEXT,
            height=height - 22,
            x=0,
            y=1,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
        )
    return height


def _fitting(text: str, width: float, size: float) -> int:
    """How many of the first characters fit, at least one."""
    taken = 0.0
    for count, letter in enumerate(text):
        taken += text_width(letter, size)
        if taken > width:
            return max(count, 1)
    return len(text)
