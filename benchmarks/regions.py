"""What a region costs on a large photograph: `python -m benchmarks.regions [--json] [--megapixels 50]`.

Each kind of region, on the 24 x 24 grid of a centre crop (LLaVA) and on a grid of the image's shape (Qwen2.5-VL): the
layout's two measures, the target of an energy, the share of attention here and at other places, the picker's weights.
Seconds are of CPU time, the median of three; megabytes are the peak that Python and numpy allocate above what is there,
image and mask included.
"""

import argparse
import json
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.analysis import head_shares
from cmllm_tools.layout.visual_tokens import DYNAMIC, fixed_grid, grid_boxes
from cmllm_tools.referring.target import Target
from cmllm_tools.widgets import RegionPicker


def regions(width: int, height: int) -> dict[str, cm.regions.Region]:
    """One of each kind, on about a tenth of the image, the mask with holes."""
    x0, y0, x1, y1 = 0.3 * width, 0.4 * height, 0.6 * width, 0.7 * height
    mask = np.zeros((height, width), bool)
    rows, columns = np.ogrid[int(y0) : int(y1), int(x0) : int(x1)]
    mask[int(y0) : int(y1), int(x0) : int(x1)] = (rows % 400 > 40) & (columns % 400 > 40)
    turns = np.linspace(0, 2 * np.pi, 300)
    wave = np.stack(
        [(x0 + x1) / 2 + np.cos(5 * turns) * (x1 - x0) / 2, (y0 + y1) / 2 + np.sin(7 * turns) * (y1 - y0) / 2], 1
    )
    return {
        "box": cm.Box(x0, y0, x1, y1),
        "mask": cm.Mask(mask),
        "scribble": cm.Scribble(wave),
        "point": cm.Point(x0, y1),
    }


def layouts(width: int, height: int) -> dict[str, cm.VisualTokenLayout]:
    """The centre crop's grid, and one of some sixteen thousand tokens."""
    scale = 336 / min(width, height)
    rows, columns = (round(side * (16384 / (width * height)) ** 0.5) for side in (height, width))
    whole = grid_boxes((0, 0, width, height), (rows, columns))
    return {
        "centre crop": fixed_grid((width, height), (int(width * scale), int(height * scale)), (336, 336), (24, 24)),
        "dynamic": cm.VisualTokenLayout((width, height), whole, (rows, columns), f"{DYNAMIC}, 2 x 2 patches a token"),
    }


def measure(megapixels: float, repeats: int = 3) -> tuple[dict[str, float], dict[str, Any]]:
    """The largest figures, and all of them: `{layout: {region: {what: [seconds, megabytes]}}}`."""
    width = round((1.5 * megapixels * 1e6) ** 0.5)
    height = round(width / 1.5)
    photo = Image.new("RGB", (width, height), "gray")
    drawn = regions(width, height)
    details: dict[str, Any] = {}
    for name, layout in layouts(width, height).items():
        values = torch.rand(8, 8, 1, len(layout))
        attention: Any = SimpleNamespace(values=values, layers=(0,), heads=(0,), prompt=SimpleNamespace(layout=layout))
        picker = RegionPicker(photo, layout=layout)
        details[name] = {}
        for kind, region in drawn.items():
            works: dict[str, Callable[[], Any]] = {
                "inside": partial(layout.inside, region),
                "distance": partial(layout.distance, region),
                "target": partial(Target.of, layout, region),
                "head_shares": partial(head_shares, attention, region),
                "picker": partial(_picked, picker, region),
            }
            details[name][kind] = {what: _cost(work, repeats) for what, work in works.items()}
    found = [cost for kinds in details.values() for works in kinds.values() for cost in works.values()]
    summary = {"megapixels": width * height / 1e6}
    summary |= {f"largest_{what}": max(cost[at] for cost in found) for at, what in enumerate(("seconds", "megabytes"))}
    return summary, details


def _picked(picker: RegionPicker, region: cm.regions.Region) -> np.ndarray:
    picker.region = None
    picker.region = region
    return picker.weights()


def _cost(work: Callable[[], Any], repeats: int) -> list[float]:
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return [round(statistics.median(seconds), 4), round(peak / 1e6, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=50)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    warnings.simplefilter("ignore", cm.RegionWarning)
    summary, details = measure(options.megapixels)
    if options.json:
        print(json.dumps({**summary, "details": details}))
        return
    for name, kinds in details.items():
        for kind, works in kinds.items():
            print(
                f"{name:12} {kind:9}", "  ".join(f"{what} {cost[0]:.3f} s {cost[1]:.1f} MB" for what, cost in works.items())
            )
    print(summary)


if __name__ == "__main__":
    main()
