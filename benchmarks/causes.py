"""A grid of knockouts, together and one by one: `python -m benchmarks.causes [--json]`, on `smol`.

Attention from all that follows the image to the image is knocked out in each of 30 layers x 9 heads by itself; the figure
is the log-probability of an answer.

- one by one: for each, one forward of the whole sequence with the mask, the vision encoder left out;
- together: `knockout_grid`, which keeps the keys of the image, gives again what the layers below a knockout gave, and runs
  several in a batch.

The former is timed on `--compare` cells, spread over the layers, which the results are compared on, and taken to be as long
for each of the others.
"""

import argparse
import json
import time
from typing import Any

import numpy as np

import cmllm_tools as cm
from cmllm_tools.bench.smol_sets import smol_scene
from cmllm_tools.causes import knockout_grid
from cmllm_tools.causes.runs import Runs
from cmllm_tools.causes.tokens import queries_of

ANSWER = "The thing in the picture is a dog, and there is nothing else to be seen in it."


def measure(mllm: cm.Mllm, count: int, answer: str = ANSWER) -> dict[str, Any]:
    """`{"max_diff", "speedup", "seconds", "tokens", "cells"}`: differences in nats, seconds of the whole grid."""
    scene = smol_scene()
    prompt = mllm.prepare(scene.image, scene.question)
    # What is run for the first time is slower.
    knockout_grid(mllm, prompt, answer=answer, layers=[mllm.layers - 1], progress=False)
    started = time.perf_counter()
    grid = knockout_grid(mllm, prompt, answer=answer)
    seconds = time.perf_counter() - started
    ids = mllm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    # From the first token on nothing is kept.
    runs, rows = Runs(mllm, prompt, ids), queries_of(mllm, prompt, "after_image")
    cells = np.linspace(0, grid.values.size - 1, min(count, grid.values.size)).astype(int).tolist()
    differences, plain = [], 0.0
    for layer, head in (divmod(cell, mllm.heads) for cell in cells):
        cut = cm.causes.AttentionCut(rows.positions, prompt.visual, rows.onwards, (layer,), (head,))
        started = time.perf_counter()
        found = runs(1, lambda cut=cut: cut.opened(mllm, runs.answered)).sum().item()
        plain += time.perf_counter() - started
        differences.append(abs(found - grid.values[layer, head]))
    return {
        "max_diff": float(max(differences)),
        "speedup": plain / len(cells) * grid.values.size / seconds,
        "seconds": seconds,
        "tokens": len(runs.answered.tokens),
        "cells": grid.values.size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--compare", type=int, default=27, metavar="N", help="cells that are also run one by one")
    options = parser.parse_args()
    summary = measure(cm.load("smol"), options.compare)
    print(json.dumps(summary) if options.json else "\n".join(f"{name:10s} {value:.4g}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
