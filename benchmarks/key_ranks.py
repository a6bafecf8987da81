"""How many directions keys move along: `python -m benchmarks.key_ranks [--model smol] [--n 12] [--json]`, held-out scenes.

`KeySteering` gives every visual token of every key head an offset of its own. Here what one step found is cut down, head by
head, to its first singular directions: of rank 1, one direction for each head times a weight for each token. What is left
is made as long as the whole was. Its effect (log-odds of the region's thing against the other one that the question names),
damage (nats a token) and share of the squared norm are set beside the whole's.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.attention.key_offsets import KeyOffsets, visual_keys
from cmllm_tools.bench.sentences import SAYS, Says
from cmllm_tools.evaluation.matching import names_it

RANKS = (1, 2, 4)


def cut(offsets: torch.Tensor, width: int, rank: int) -> tuple[torch.Tensor, float]:
    """Offsets (visual token, heads x width) of so many directions a head, as long as before; their share of the square."""
    heads = offsets.unflatten(-1, (-1, width)).transpose(0, 1)
    u, s, v = torch.linalg.svd(heads, full_matrices=False)
    kept = (u[..., :rank] * s[:, None, :rank]) @ v[:, :rank]
    share = (kept.norm() / offsets.norm()).square().item()
    return (kept / kept.norm() * offsets.norm()).transpose(0, 1).flatten(1), share


def of_scene(mllm: cm.Mllm, scene: cm.bench.ReferringExample, says: Says) -> list[tuple[float, float, float]]:
    """(effect, damage, share of the square) of each rank, and of the whole."""
    wanted = scene.names[0]
    other = next(name for name in scene.objects if name != wanted and names_it(scene.question, name))
    baseline = cm.Baseline(mllm, scene.image, scene.question, candidates=[says(name) for name in (wanted, other)])
    method = cm.methods.KeySteering(steps=1, **({"step_size": 0.2} if says is str else {}))
    outcome = cm.refer(mllm, baseline.prompt.image, scene.question, scene.region("box"), method)
    width = visual_keys(mllm, baseline.prompt).by_layer[0].shape[-1]
    found = []
    for rank in (*RANKS, width):
        offsets, share = cut(outcome.intervention.offsets, width, rank)
        found.append((*baseline.moved(replace(outcome, intervention=KeyOffsets(offsets))), share))
    return found


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smol", choices=list(SAYS))
    parser.add_argument("--n", type=int, default=12, help="scenes")
    parser.add_argument("--skip", type=int, default=0, help="scenes left out before")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    smol = options.model == "smol"
    mllm, scenes = (cm.load("smol"), cm.bench.smol_held_out()) if smol else (cm.load(), cm.bench.held_out())
    chosen = scenes[options.skip :][: options.n]
    found = np.array([of_scene(mllm, scene, SAYS[options.model]) for scene in tqdm(chosen, "scenes")])
    result = {
        str(rank): {
            "effect": float(values[:, 0].mean()),
            "interval": bootstrap(values[:, 0]).tolist(),
            "damage": float(values[:, 1].mean()),
            "share_of_square": float(values[:, 2].mean()),
        }
        for rank, values in zip((*RANKS, "all"), found.transpose(1, 0, 2), strict=True)
    }
    if options.json:
        print(json.dumps({"model": mllm.name, "n": len(found), "ranks": result}))
        return
    for rank, each in result.items():
        low, high = each["interval"]
        print(
            f"rank {rank:<3} {each['effect']:+6.2f} ({low:+.2f} to {high:+.2f}), damage {each['damage']:+.3f}, "
            f"{each['share_of_square']:.1%} of the square"
        )


if __name__ == "__main__":
    main()
