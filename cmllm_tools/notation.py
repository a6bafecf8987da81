"""One way to write layers, updates and tables, wherever a person reads them."""

from collections.abc import Sequence

# Stands in a question for the words that name the region, as `<location>` does in the published questions.
PLACE = "{place}"


def number_ranges(numbers: Sequence[int]) -> str:
    """`0..3, 7` for (0, 1, 2, 3, 7): both ends are meant."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in parts)


def layers_text(layers: Sequence[int]) -> str:
    """`layers 0..2 (3)` for (0, 1, 2), `layer 4` for (4,): which, and how many."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    return f"layers {number_ranges(layers)} ({len(layers)})"


def window_text(window: tuple[int, int]) -> str:
    """`layers 0..2 (3)` for the window [0, 3), as the methods' `layers` takes it."""
    return layers_text(range(*window))


def updates_text(count: int) -> str:
    """`10 updates`: how often the latent was moved; a run of n updates has n + 1 steps, as step 0 is unsteered."""
    return f"{count} update" if count == 1 else f"{count} updates"


def text_table(rows: Sequence[Sequence[str]], sides: str, least: Sequence[int] = ()) -> str:
    """Rows as lines of text, the first of headings; columns stand two spaces apart.

    Args:
        rows: of as many cells each.
        sides: for each column "<" for texts, from the left, or ">" for numbers, from the right.
        least: width of each of the first columns; a column is as wide as its widest cell, and at least this.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = [max(width, *least[at : at + 1]) if at < len(least) else width for at, width in enumerate(widths)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of headings, as a table for a Markdown page."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
