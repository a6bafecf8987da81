"""A sweep over all windows of layers, together and one by one: `python -m benchmarks.sweep [--json]`.

On the embedded model and its held-out scenes, 21 windows with two context tokens each:

- one by one: `optimize` for each choice, and the answers' scores with its latent, as a user's own loop would do it;
- together: `sweep_windows`, the choices as copies of the prompt in one batch.

Both are interleaved over `--compare` scenes; then a whole sweep over `--examples` scenes is timed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import cmllm_tools as cm
from cmllm_tools.analysis import Choice, Example, Sweep, sweep_windows
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.models.batch import MAX_COPIES
from cmllm_tools.models.scoring import AnswerScore
from cmllm_tools.referring.latent_method import LatentMethod

COMPARED = ("energy before", "energy", "share before", "share", "moved", "damage")
CONTEXTS = ("text", "last")


def one_by_one(mllm: cm.Mllm, example: Example, choices: Sequence[Choice], method: LatentMethod) -> np.ndarray:
    """(figure, choice): the figures COMPARED of one example."""
    prompt = mllm.prepare(example.image, example.question)
    own = mllm.generate(prompt)
    texts = [example.answer, *example.alternatives]
    texts += [own] if own and not any(own.startswith(text) or text.startswith(own) for text in texts) else []
    scores = [AnswerScore(mllm, prompt, text) for text in dict.fromkeys(texts)]
    plain = torch.stack([score(torch.zeros_like(prompt.zero_latent())[None])[0] for score in scores])
    columns = []
    for choice in choices:
        run = replace(method, layers=choice.layers, queries=choice.queries)
        trace = cm.optimize(mllm, prompt, example.region, run)
        steered = torch.stack([score(trace.latent[None])[0] for score in scores])
        first, last = trace.steps[0], trace.steps[-1]
        moved, damage = (steered - plain)[0].item(), (plain.logsumexp(0) - steered.logsumexp(0)).item()
        columns.append([first.energy, last.energy, first.share, last.share, moved, damage])
    return np.array(columns).T


def together(sweep: Sweep) -> np.ndarray:
    """(figure, choice): the same of a sweep over one example."""
    return np.stack([sweep.figure(name)[:, 0] for name in COMPARED])


def measure(compare: int, count: int, method: LatentMethod | None = None) -> dict[str, Any]:
    """`{"max_rel_diff", "speedup", "all_windows_seconds"}`."""
    mllm = cm.load()
    method = method or cm.ControlMLLMPlus()
    examples = [line.example("box") for line in read_roc(HELDOUT)[: max(compare, count)]]
    # Both have run once, so that neither pays for what the first run sets up.
    choices = sweep_windows(mllm, examples[:1], contexts=CONTEXTS, method=method, progress=False).choices
    one_by_one(mllm, examples[0], choices[:1], method)
    differences, ratios = [], []
    for example in examples[:compare]:
        started = time.perf_counter()
        # How many copies fit is found once for a sweep, and is no part of an example.
        swept = together(
            sweep_windows(mllm, [example], contexts=CONTEXTS, method=method, max_copies=MAX_COPIES, progress=False)
        )
        between = time.perf_counter()
        alone = one_by_one(mllm, example, choices, method)
        ratios.append((time.perf_counter() - between) / (between - started))
        # Of each figure's largest value; differences of log-probabilities may be next to nothing for every choice.
        scale = np.abs(alone).max(1, keepdims=True).clip(0.1)
        differences.append((np.abs(swept - alone) / scale).max())
    started = time.perf_counter()
    sweep_windows(mllm, examples[:count], contexts=CONTEXTS, method=method)
    return {
        "max_rel_diff": float(max(differences)),
        "speedup": statistics.median(ratios),
        "all_windows_seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--compare", type=int, default=5, metavar="N", help="scenes on which both ways are run")
    parser.add_argument("--examples", type=int, default=20, metavar="N", help="scenes of the timed sweep")
    options = parser.parse_args()
    summary = measure(options.compare, options.examples)
    print(json.dumps(summary) if options.json else "\n".join(f"{name:20s} {value:.4g}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
