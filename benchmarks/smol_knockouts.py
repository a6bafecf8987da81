"""What `smol` needs to look at, and in which layers: `python -m benchmarks.smol_knockouts [--n 10] [--json]`.

On its held-out scenes ("Is the thing in the picture a A or a B?", both there), attention to the box of one of the two
things is knocked out in a window of layers alone: from the question's tokens, or from those that the answer is said at. The
figure is the change in log-odds of that thing against the other one. See `docs/findings.md`.
"""

import argparse
import json
from collections.abc import Iterable

import numpy as np
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.bench.sentences import smol_says
from cmllm_tools.bench.smol_sets import smol_held_out
from cmllm_tools.causes import knockout_grid
from cmllm_tools.evaluation.matching import names_it

FROM = ("text", "answering")
WINDOW = 10


def effects(mllm: cm.Mllm, scene: cm.bench.ReferringExample) -> np.ndarray:
    """(from, window, or all layers): change in log-odds of the thing referred to against the other one."""
    wanted = scene.names[0]
    other = next(name for name in scene.objects if name != wanted and names_it(scene.question, name))
    candidates = [smol_says(name) for name in (wanted, other)]
    prompt, box = mllm.prepare(mllm.look(scene.image), scene.question), scene.region("box")
    asked = {"together": True, "candidates": candidates, "progress": False}
    found = []
    for from_ in FROM:
        windows = knockout_grid(mllm, prompt, from_, box, window=WINDOW, step=WINDOW, **asked)
        every = knockout_grid(mllm, prompt, from_, box, window=mllm.layers, **asked)
        found.append([*windows.change[:, 0], every.change[0, 0]])
    return np.array(found)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=10, help="scenes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(None if arguments is None else list(arguments))
    mllm = cm.load("smol")
    found = np.array([effects(mllm, scene) for scene in tqdm(smol_held_out()[: options.n], "scenes")])
    names = [*(f"layers {low}..{low + WINDOW - 1}" for low in range(0, mllm.layers, WINDOW)), "all layers"]
    low, high = bootstrap(found)
    result = {
        f"{from_}, {name}": {
            "effect": float(found[:, row, column].mean()),
            "interval": [float(low[row, column]), float(high[row, column])],
            "less": float((found[:, row, column] < 0).mean()),
        }
        for row, from_ in enumerate(FROM)
        for column, name in enumerate(names)
    }
    if options.json:
        print(json.dumps({"n": len(found), "weights": mllm.revision, "effects": result}))
        return
    for name, each in result.items():
        print(
            "{:<28} {:+6.2f} ({:+.2f} to {:+.2f}), less of it in {:.0%}".format(
                name, each["effect"], *each["interval"], each["less"]
            )
        )


if __name__ == "__main__":
    main()
