"""Whether attribution finds the object that a question names by its colour: `python -m benchmarks.attribution [--json]`.

On held-out scenes of the embedded model: the share in which a method's highest visual token lies on the object, the share
that chance would give, and the largest completeness error of integrated gradients.
"""

import argparse
import json
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from tqdm import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis import attribute
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc

METHODS = ("integrated_gradients", "input_x_gradient", "feature_ablation", "occlusion")


def measure(count: int, skip: int = 0) -> dict[str, Any]:
    """`{"n", "chance", "completeness_error", METHOD: share}` over `count` scenes that have a colour of one object alone."""
    mllm = cm.load()
    found, chance, errors = defaultdict(list), [], []
    for line in tqdm(read_roc(HELDOUT)[skip : skip + count], "scenes", file=sys.stderr):
        colors = [thing["name"].split()[0] for thing in line.data["objects"]]
        alone = [thing for thing, color in zip(line.data["objects"], colors, strict=True) if colors.count(color) == 1]
        if not alone:
            continue
        x, y, width, height = alone[0]["bbox"]
        prompt = mllm.prepare(line.image, f"what is the {alone[0]['name'].split()[0]} object?")
        inside = prompt.layout.inside(cm.Box(x, y, x + width, y + height)) > 0
        chance.append(inside.mean())
        for method in METHODS:
            result = attribute(mllm, prompt, alone[0]["name"], method, progress=False)
            found[method].append(inside[int(result.values.argmax())])
            if result.completeness_error is not None:
                errors.append(result.completeness_error)
    return {
        "n": len(chance),
        "chance": float(np.mean(chance)),
        "completeness_error": float(max(errors)),
        **{method: float(np.mean(hits)) for method, hits in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--n", type=int, default=64, metavar="N", help="number of scenes")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N scenes")
    options = parser.parse_args()
    summary = measure(options.n, options.skip)
    print(json.dumps(summary) if options.json else "\n".join(f"{name:22s} {value:.4g}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
