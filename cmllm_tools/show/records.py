"""A page of a run's records: figures with intervals, paired differences, a gallery to filter; opens without a network."""

import base64
from collections.abc import Iterable
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from ..errors import CmllmError, DataError
from ..evaluation.records import Record
from ..evaluation.scorers import mean_of
from ..evaluation.summary import Difference, Evaluation, written
from ..evaluation.thumbnails import LEVELS
from ..files import write_text
from ..inputs.images import read_image
from ..inputs.regions import Region
from ..progress import progress_bar
from ..strict import kind_of
from . import palette
from .html import rendered, table, text

# Longest side of a picture of the gallery, in pixels, and the quality of its JPEG.
SIDE, QUALITY = 112, 55
# Bytes of all pictures together; later ones are left out.
MOST_BYTES = 40 << 20
# Points of an outline; a region of more is shown by its box.
MOST_POINTS = 60
# Shares of the image's area that small, middle and large regions begin with.
SIZES = {"small": 0.0, "middle": 0.05, "large": 0.25}
OTHER = "other: "


def records_html(run: Evaluation, against: Evaluation | None = None, progress: bool = True) -> str:
    """The page as a string.

    Args:
        run: whose answers are shown.
        against: another run of the same set, whose methods are shown beside those of the first.
        progress: whether a bar is shown while pictures are made.

    Raises:
        DataError: for what are no runs, or runs without an example in common.
    """
    for each in (run, against or run):
        kind_of(each, Evaluation, "A page of records is of an Evaluation, from evaluate or Evaluation.load", DataError)
    both = run if against is None else _together(run, against)
    examples: dict[str, dict[str, Record]] = {}
    for record in both.records:
        examples.setdefault(str(record.id), {})[record.method] = record
    pictures, sizes = _pictures(both.records, progress)
    order = {path: at for at, path in enumerate(pictures)}
    data = {
        "methods": list(both.methods),
        "ramp": palette.ramp()[:: 255 // (len(LEVELS) - 1)].tolist(),
        "examples": [_example(some, both.methods, order, sizes) for some in examples.values()],
    }
    return rendered(
        "records.html",
        title=f"{both.records[0].task or 'answers'}: {len(examples)} examples, {both.records[0].model}",
        figures=_figures(both),
        differences=[str(each) for each in _differences(run, against)],
        failed=len(both.failed),
        sizes=list(SIZES),
        data=data,
        pictures=[Markup(uri) for uri in pictures.values()],  # noqa: S704 (made here, of base64)
        script=Markup((Path(__file__).parent / "js/records.js").read_text(encoding="utf-8")),  # noqa: S704
        colors={"right": palette.BLUE, "wrong": palette.VERMILION, "rim": palette.RIM, "line": palette.YELLOW},
    )


def write_records(run: Evaluation, path: str | PathLike[str], against: Evaluation | None = None) -> Path:
    """Write the page to a file.

    Raises:
        OutputError: when the file cannot be written.
        DataError: as `records_html`.
    """
    return write_text(path, records_html(run, against))


def _together(run: Evaluation, against: Evaluation) -> Evaluation:
    """Both runs' answers to the examples of the first, the other's methods named as the other's."""
    from dataclasses import replace

    ids = {str(each.id) for each in run.records}
    other = tuple(replace(each, method=OTHER + each.method) for each in against.records if str(each.id) in ids)
    if not other:
        raise DataError("Runs are shown against each other on the same examples; these have none in common.")
    return Evaluation((*run.records, *other))


def _figures(run: Evaluation) -> Markup:
    found = {method: run.figures(method) for method in run.methods}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = []
    for method, figures in found.items():
        answers = run.of(method)
        seconds = f"{mean_of([each.seconds for each in answers]).mean:.2f}" if answers else ""
        failed = sum(each.method == method for each in run.failed)
        cells = [written(name, figures[name]) if name in figures else "" for name in names]
        rows.append([text(method), len(answers), failed, seconds, *cells])
    return table(["method", "answers", "failed", "seconds", *names], rows)


def _differences(run: Evaluation, against: Evaluation | None) -> Iterable[Difference]:
    """Each method less the first one; and less its own in the other run, where there is one."""
    first, *rest = run.methods
    for method in rest:
        if _ids(run, method) & _ids(run, first):
            yield from run.difference(method, first)
    for method in run.methods if against is not None else ():
        if against is not None and method in against.methods and _ids(run, method) & _ids(against, method):
            for each in run.difference(method, method, against):
                yield Difference(**{**vars(each), "against": OTHER + method})


def _ids(run: Evaluation, method: str) -> set[str]:
    return {str(each.id) for each in run.of(method)}


def _pictures(records: Iterable[Record], progress: bool) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """A small copy of each image that can be read, as a data URI, and the sizes of the images."""
    found: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    left = MOST_BYTES
    paths = dict.fromkeys(each.image for each in records if each.image is not None)
    for path in progress_bar(paths, "pictures", progress, unit="picture"):
        try:
            image = read_image(path)
        except CmllmError:
            # One that is gone is not shown; the answer is.
            continue
        sizes[path] = image.size
        uri = _small(image)
        if (left := left - len(uri)) > 0:
            found[path] = uri
    return found, sizes


def _small(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    held = BytesIO()
    image.save(held, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"


def _example(
    some: dict[str, Record], methods: Iterable[str], order: dict[str, int], sizes: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """What the gallery has of one example: short names, as there are thousands of it."""
    one = next((each for each in some.values() if each.question), next(iter(some.values())))
    size = sizes.get(one.image or "", (one.size[0], one.size[1]) if len(one.size) == 2 else (1, 1))
    regions = _regions(one)
    return {
        "id": one.id,
        "q": one.question,
        "names": list(dict.fromkeys(one.names)),
        "where": one.where,
        "picture": order.get(one.image or "", -1),
        "size": size,
        "lines": [line for region in regions for line in _outline(region)],
        "area": _class(regions, size),
        "answers": [None if method not in some else _answer(some[method]) for method in methods],
    }


def _answer(record: Record) -> list[Any]:
    """Text, figure in 0..1 where there is one, share in the regions, error, words that were sent, attention."""
    figure = record.scores.get("right", record.scores.get("score"))
    share = record.share[-1] if record.share else None
    error = None if record.error is None else f"{record.error.get('kind')}: {record.error.get('message')}"
    small = record.attention
    # Rows, columns, corners; a digit to each cell, before and after.
    maps = None if small is None else [*small["grid"], *small["on"], small["before"], small["after"]]
    return [record.answer, figure, None if share is None else round(share, 3), error, record.sent, maps]


def _regions(record: Record) -> list[Region]:
    try:
        return record.region
    except CmllmError:
        return []


def _outline(region: Region) -> list[list[float]]:
    """Lines as x, y, x, y, ... in pixels of the image."""
    lines = region.outline()
    if sum(map(len, lines)) > MOST_POINTS:
        x0, y0, x1, y1 = region.bounds
        lines = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]]
    return [[round(value, 1) for point in line for value in point] for line in lines]


def _class(regions: Iterable[Region], size: tuple[int, int]) -> str:
    """Name of the largest of SIZES that the box around the regions is."""
    bounds = [region.bounds for region in regions]
    if not bounds:
        return ""
    lows, highs = [min(each[at] for each in bounds) for at in (0, 1)], [max(each[at] for each in bounds) for at in (2, 3)]
    share = (highs[0] - lows[0]) * (highs[1] - lows[1]) / (size[0] * size[1])
    return [name for name, least in SIZES.items() if share >= least][-1]
