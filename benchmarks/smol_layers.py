"""Where attention helps: `python -m benchmarks.smol_layers [edit|keys] [--n 40] [--words] [--json]`, on `smol`'s scenes.

For each scene, attention to the region is raised in a window of layers alone (`AttentionEdit`, a bias of 3), and in all; or
the keys of all layers or of the last ten are moved (`KeySteering`), a little, more and much. The figures are the change in
log-odds of the region's thing against the other one that the question names, and damage to an unrelated text. With
`--words` the scenes are pictures made of words, which the language model reads without trained eyes.
"""

import argparse
import json
from collections.abc import Iterable

import numpy as np
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.bench.sentences import smol_says
from cmllm_tools.evaluation.matching import names_it
from cmllm_tools.notation import window_text

WINDOWS = ((0, 10), (10, 20), (20, 30))
LAST = WINDOWS[-1]


def edits(strength: float = 3.0) -> dict[str, cm.Method]:
    """Attention raised in a window, or in all layers."""
    windows = {window_text(window): cm.methods.AttentionEdit(strength, layers=window) for window in WINDOWS}
    return {**windows, "all layers": cm.methods.AttentionEdit(strength)}


def keys(sizes: Iterable[float] = (0.003, 0.005, 0.01)) -> dict[str, cm.Method]:
    """Keys of all layers moved, and of the last ten, by steps of growing size."""
    return {
        f"{size:.1%} of keys, {window_text(window) if window else 'all layers'}": cm.methods.KeySteering(
            step_size=size, moved_layers=window
        )
        for window in ((), LAST)
        for size in sizes
    }


WAYS = {"edit": edits, "keys": keys}


def effects(
    mllm: cm.Mllm, scene: cm.bench.ReferringExample, methods: dict[str, cm.Method]
) -> list[tuple[float, float, bool]]:
    """For each way: change in log-odds of the thing referred to against the other one, damage, and whether it is named."""
    wanted = scene.names[0]
    other = next(name for name in scene.objects if name != wanted and names_it(scene.question, name))
    candidates = [smol_says(name) for name in (wanted, other)]
    baseline = cm.Baseline(mllm, scene.image, scene.question, candidates=candidates)
    outcomes = [cm.refer(mllm, scene.image, scene.question, scene.region("box"), method) for method in methods.values()]
    return [(*baseline.moved(outcome), cm.bench.chooses(str(outcome.answer), scene)) for outcome in outcomes]


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ways", nargs="?", default="edit", choices=list(WAYS))
    parser.add_argument("--n", type=int, default=40, help="scenes")
    parser.add_argument("--skip", type=int, default=0, help="scenes left out before")
    parser.add_argument("--words", action="store_true", help="pictures made of words, in place of the held-out scenes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    mllm, methods = cm.load("smol"), WAYS[options.ways]()
    end = options.skip + options.n
    scenes = (cm.bench.word_scenes(end) if options.words else cm.bench.smol_held_out())[options.skip : end]
    reader = cm.bench.word_reader(mllm) if options.words else mllm
    found = np.array([effects(reader, scene, methods) for scene in tqdm(scenes, "scenes")], dtype=float)
    result = {
        name: {
            "effect": float(values[:, 0].mean()),
            "interval": bootstrap(values[:, 0]).tolist(),
            "towards": float((values[:, 0] > 0).mean()),
            "damage": float(values[:, 1].mean()),
            "damage_interval": bootstrap(values[:, 1]).tolist(),
            "names_it": float(values[:, 2].mean()),
        }
        for name, values in zip(methods, found.transpose(1, 0, 2), strict=True)
    }
    if options.json:
        print(json.dumps({"n": len(found), "weights": mllm.revision, "effects": result}))
        return
    for name, each in result.items():
        (low, high), (least, most) = each["interval"], each["damage_interval"]
        print(
            f"{name:<31} {each['effect']:+6.2f} ({low:+.2f} to {high:+.2f}), towards it in {each['towards']:.0%},", end=" "
        )
        print(f"named in {each['names_it']:.0%}, damage {each['damage']:+.3f} ({least:+.3f} to {most:+.3f})")


if __name__ == "__main__":
    main()
