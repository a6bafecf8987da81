"""Where attention helps: `python -m benchmarks.smol_layers [--n 40] [--json]`, on `smol`'s held-out scenes.

For each scene, attention to the region is raised in a window of layers alone (`AttentionEdit`, a bias of 3), and in all;
the figure is the change in log-odds of the region's thing against the other one that the question names. Beside it,
KeySteering.
"""

import argparse
import json
from collections.abc import Iterable

import numpy as np
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.bench.matching import names_it
from cmllm_tools.bench.smol_sets import smol_held_out
from cmllm_tools.notation import window_text

WINDOWS = ((0, 10), (10, 20), (20, 30))


def ways(strength: float = 3.0) -> dict[str, cm.Method]:
    """What is compared, by name."""
    windows = {window_text(window): cm.methods.AttentionEdit(strength, layers=window) for window in WINDOWS}
    return {**windows, "all layers": cm.methods.AttentionEdit(strength), "key_steering": cm.methods.KeySteering()}


def effects(mllm: cm.Mllm, scene: cm.bench.ReferringExample, methods: dict[str, cm.Method]) -> list[float]:
    """Change in log-odds of the thing referred to against the other one, for each way."""
    wanted = scene.names[0]
    other = next(name for name in scene.objects if name != wanted and names_it(scene.question, name))
    candidates = [f"The thing in the picture is a {name}." for name in (wanted, other)]
    baseline = cm.Baseline(mllm, scene.image, scene.question, candidates=candidates)
    before = baseline.log_odds[0]
    outcomes = (cm.refer(mllm, scene.image, scene.question, scene.region("box"), method) for method in methods.values())
    return [baseline.odds(outcome) - before for outcome in outcomes]


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=40, help="scenes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    mllm, methods = cm.load("smol"), ways()
    found = np.array([effects(mllm, scene, methods) for scene in tqdm(smol_held_out()[: options.n], "scenes")])
    ends = bootstrap(found).T
    result = {
        name: {
            "effect": float(values.mean()),
            "interval": [float(end) for end in interval],
            "towards": float((values > 0).mean()),
        }
        for name, values, interval in zip(methods, found.T, ends, strict=True)
    }
    if options.json:
        print(json.dumps({"n": len(found), "weights": mllm.revision, "effects": result}))
        return
    for name, each in result.items():
        low, high = each["interval"]
        print(f"{name:<19} {each['effect']:+6.2f} ({low:+.2f} to {high:+.2f}), towards it in {each['towards']:.0%}")


if __name__ == "__main__":
    main()
