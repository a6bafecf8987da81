"""When to stop, without tuning per model: `python -m benchmarks.stopping [--n 20] [--smol 4] [--json]`.

Runs in small steps end once attention in the region, against that elsewhere, is so many times what it was. The gain is
chosen on the first half of the embedded model's scenes, and shown on the other half and on `smol`, beside the fixed number
of steps that is best on those very scenes.
"""

import argparse
import json
from collections.abc import Iterable

import cmllm_tools as cm
from cmllm_tools.bench.smol_sets import smol_held_out
from cmllm_tools.bench.stopping import KEYS, SENTENCES, stops

LATENT = {"embedded": (0.03, (2, 5, 10, 20)), "smol": (0.02, (1, 2, 3, 5))}


def ways(model: str) -> dict[str, tuple[cm.LatentMethod, tuple[int, ...]]]:
    """A method in small steps, and the fixed numbers of steps that it is held against, by name."""
    (step, keys), (share, latent) = KEYS[model], LATENT[model]
    return {
        "KeySteering": (cm.methods.KeySteering(steps=keys[-1], step_size=step), keys),
        "ControlMLLMPlus": (cm.ControlMLLMPlus(steps=latent[-1], step_size=share, relative=True), latent),
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=20, help="scenes of the embedded model, half of them to choose on")
    parser.add_argument("--smol", type=int, default=0, help="scenes of smol, after the first 4")
    parser.add_argument("--methods", nargs="+", choices=list(ways("embedded")), default=list(ways("embedded")))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    result: dict[str, dict[str, object]] = {}
    for name in options.methods:
        scenes, half = cm.bench.held_out()[: options.n], options.n // 2
        found = stops(cm.load(), scenes, *ways("embedded")[name], sentence=SENTENCES["embedded"])
        gain = found.of(slice(half)).best_rule()
        result[name] = {
            "chosen_on": found.of(slice(half)).summary(gain),
            "embedded": found.of(slice(half, None)).summary(gain),
        }
        if options.smol:
            scenes = smol_held_out()[4 : 4 + options.smol]
            seen = stops(cm.load("smol"), scenes, *ways("smol")[name], sentence=SENTENCES["smol"])
            result[name]["smol"] = seen.summary(gain)
    if options.json:
        print(json.dumps(result))
        return
    for name, models in result.items():
        for model, each in models.items():
            print(f"{name:<16} {model:<10} {each}")


if __name__ == "__main__":
    main()
