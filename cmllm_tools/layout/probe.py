"""Layout by probing: move a band over probe images and see which visual tokens change."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from ..errors import UnsupportedModelError
from ..inputs.regions import Size
from ..progress import progress_bar
from .placement import Placement

States = Callable[[Image.Image], np.ndarray]

PROBE = "probed"
# Positions of the band along each side of the image: at least these, and two for each token.
POSITIONS = 24
# A band is changed in this many pieces, one after another: the smaller a piece, the less it moves tokens elsewhere.
PIECES = 4
SEED = 0
# A code's place ends where so many bands and one more in a row move it little: far ones move it by chance.
GAP = 2
# Discrete codes are probed on this many images.
CODE_IMAGES = 16
# A token's box must hold this share of what moves it, beyond what the same share of the image would hold, or it looks
# nowhere; for half of the tokens it must be more, or probing fails.
LEAST_LOCAL = 0.1
LEAST_CONFIDENCE = 0.3


def probe(states: States, image_size: Size, pieces: int = PIECES) -> Placement:
    """Find the box of each visual token by changing one band of the image after another.

    A band across the image's height, moved from left to right, tells each token's extent in x; one across its width that in
    y. It takes 48 * `pieces` runs of the vision encoder or, for more than 144 tokens, 4 * `pieces` * sqrt(tokens); sixteen
    times as many for an encoder that gives discrete codes.

    Args:
        states: gives the visual states (token, width) for an RGB image.
        image_size: (width, height) in pixels.
        pieces: in how many pieces a band is changed. More keep apart what a token sees and what reaches it through the
            encoder's own attention.

    Returns:
        The boxes; NaN for tokens that no band moves (row ends) or that every band moves alike (CLS). Its rule names the
        confidence: the median over tokens, each counted by the strength of its response, of the share of that response that
        lies in its box; 0 for tokens that respond alike everywhere, 1 for tokens that respond nowhere else.

    Raises:
        UnsupportedModelError: when tokens are not local, as behind a Q-Former or a resampler.
    """
    before, changes, edges = _changes(states, image_size, pieces, SEED)
    codes = _are_codes(before, changes)
    if codes:
        # States that recur exactly are codes: one image says only whether a band was enough for them to jump.
        for seed in range(SEED + 1, SEED + CODE_IMAGES):
            more = _changes(states, image_size, pieces, seed)[1]
            changes = [total + change for total, change in zip(changes, more, strict=True)]
    responses = []
    for axis in (0, 1):
        strongest = changes[axis].max(0).argmax(0)
        responses.append((np.take_along_axis(changes[axis], strongest[None, None], 1)[:, 0], edges[axis]))
    return _placement(responses, before, GAP if codes else None)


def _are_codes(before: np.ndarray, changes: list[np.ndarray]) -> bool:
    """Whether states recur exactly in tokens that look elsewhere; those of empty tiles respond alike."""
    moves = np.concatenate([change.reshape(-1, len(before)) for change in changes]).T
    moved = moves.max(1) > 0
    alike = np.round(moves[moved] / max(moves.max(), 1e-30), 4)
    distinct = np.unique(np.concatenate([before[moved], alike], axis=1), axis=0)
    return len(np.unique(before[moved], axis=0)) < len(distinct)


def _changes(
    states: States, image_size: Size, pieces: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A probe image's states, and for each axis by how much a change of each band moves them, and the bands' edges.

    States (token, width); changes (band, piece, token).
    """
    base, other = _probe_images(image_size, seed)
    before = states(base)
    moves, ends_of_bands = [], []
    for axis in (0, 1):
        positions = min(max(POSITIONS, round(2 * len(before) ** 0.5)), image_size[axis])
        edges = _edges(image_size[axis], positions)
        across = _edges(image_size[1 - axis], min(pieces, image_size[1 - axis]))
        changes = np.zeros((len(edges) - 1, len(across) - 1, len(before)))
        steps = [(band, piece) for band in range(len(edges) - 1) for piece in range(len(across) - 1)]
        for band, piece in progress_bar(steps, f"probing {'xy'[axis]}", leave=False):
            ends = (edges[band : band + 2], across[piece : piece + 2])
            (x0, x1), (y0, y1) = ends if axis == 0 else ends[::-1]
            image = base.copy()
            image.paste(other.crop((x0, y0, x1, y1)), (x0, y0))
            changes[band, piece] = np.linalg.norm(states(image) - before, axis=1)
        moves.append(changes)
        ends_of_bands.append(edges)
    return before, moves, ends_of_bands


def _edges(length: int, parts: int) -> np.ndarray:
    return np.round(np.linspace(0, length, parts + 1)).astype(int)


def _probe_images(image_size: Size, seed: int) -> tuple[Image.Image, Image.Image]:
    """A smooth random image and its negative: every place has structure, and a band changes all it covers."""
    rng = np.random.default_rng(seed)
    width, height = image_size
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    grain = max(1.0, min(image_size) / 100)
    smooth = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(grain)), float)
    spread = np.clip((smooth - smooth.mean()) * (60 / max(smooth.std(), 1e-6)) + 128, 0, 255).astype(np.uint8)
    return Image.fromarray(spread), Image.fromarray(255 - spread)


def _placement(responses: list[tuple[np.ndarray, np.ndarray]], before: np.ndarray, gap: int | None) -> Placement:
    scale = np.linalg.norm(before, axis=1).mean()
    strength = np.minimum(responses[0][0].max(0), responses[1][0].max(0))
    moved = strength > 1e-4 * scale
    spans, inside = [], []
    for changes, edges in responses:
        low, high, held = _extent(changes, edges, gap)
        spans.append((low, high))
        inside.append(held)
    (x0, x1), (y0, y1) = spans
    boxes = np.stack([x0, y0, x1, y1], 1)
    local = np.minimum(*inside)
    boxes[~moved | (local < LEAST_LOCAL)] = np.nan
    # Tokens over padding see nothing of the image, and respond to all of it, weakly, through the encoder's attention.
    confidence = _weighted_median(local[moved], strength[moved]) if moved.any() else 0.0
    if confidence < LEAST_CONFIDENCE:
        raise UnsupportedModelError(
            "Visual tokens must be local to be laid out by probing: half of them respond to every part of the image "
            f"(confidence {confidence:.2f}, at least {LEAST_CONFIDENCE} is needed). This is so behind a Q-Former or a "
            "resampler, whose tokens look everywhere."
        )
    return Placement(boxes, f"{PROBE}, confidence {confidence:.2f}")


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    counted = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(counted, counted[-1] / 2)])


def _run(strong: np.ndarray, peak: int, gap: int) -> tuple[int, int]:
    """First and last of the strong bands around the peak, among which at most `gap` in a row are weak."""
    breaks = np.flatnonzero(np.diff(strong) > gap + 1)
    at = np.searchsorted(strong, peak)
    before, after = breaks[breaks < at], breaks[breaks >= at]
    return strong[before[-1] + 1 if len(before) else 0], strong[after[0] if len(after) else -1]


def _extent(changes: np.ndarray, edges: np.ndarray, gap: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of each token's box along one axis, and how much more of its response lies within than chance would have.

    changes (band, token); edges (band + 1,); what lies beyond more than `gap` weak bands in a row does not count, all does
    when None. What a token responds to everywhere, through the encoder's own attention, is taken off first; an end lies
    where the response falls to half of its highest, between bands by interpolation.
    """
    floor = np.median(changes, 0)
    local = np.clip(changes - floor, 0, None)
    peak = np.maximum(local.max(0), 1e-30)
    strong = local > 0.5 * peak
    strong[local.argmax(0), np.arange(changes.shape[1])] = True
    first, last = strong.argmax(0), len(strong) - 1 - strong[::-1].argmax(0)
    if gap is not None:
        runs = [_run(np.flatnonzero(column), at, gap) for column, at in zip(strong.T, local.argmax(0), strict=True)]
        first, last = np.transpose(runs)
    token = np.arange(changes.shape[1])
    padded = np.concatenate([np.zeros((1, len(token))), local, np.zeros((1, len(token)))])
    width = np.diff(edges)
    # The bands at the ends are covered in part: by the share of the full response that they show.
    low = edges[first + 1] - width[first] * np.clip(local[first, token] / peak, 0, 1)
    low = low - np.where(first > 0, width[first - 1], 0) * np.clip(padded[first, token] / peak, 0, 1)
    high = edges[last] + width[last] * np.clip(local[last, token] / peak, 0, 1)
    after = np.where(last + 1 < len(width), width[np.minimum(last + 1, len(width) - 1)], 0)
    high = high + after * np.clip(padded[last + 2, token] / peak, 0, 1)
    bands = np.arange(len(changes))[:, None]
    within = (bands >= first) & (bands <= last)
    total = changes.sum(0)
    share = np.where(within, changes, 0).sum(0) / np.maximum(total, 1e-30)
    chance = within.mean(0)
    return low, high, (share - chance) / np.maximum(1 - chance, 1e-9)
