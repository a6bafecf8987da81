"""What steering costs, method by method: `python -m benchmarks.steer [--json] [--repeats N]`.

On the random LLaVA of `benchmarks.capture` (576 visual tokens, 12 layers, width 512, float32), interleaved in one process,
so that a busy machine slows all alike: seconds of a step; question to steered answer of 10 tokens, with each method's own
number of steps, as a ratio to a plain answer, in time and in the peak of what torch allocates; a step's growth.
The reference is the published way: eager attention of all layers kept whole.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable

from tqdm import tqdm

import cmllm_tools as cm
from benchmarks.capture import QUESTION, Setting, seconds
from cmllm_tools.attention.memory import peak_bytes

GRIDS = (16, 24, 32, 64)
REGION = cm.Box(40, 40, 120, 120)
TOKENS = {"max_new_tokens": 10, "min_new_tokens": 10}
# The steps are those published, or the default; early stops would make them differ by luck.
METHODS: dict[str, cm.LatentMethod] = {
    "controlmllm": cm.ControlMLLM(steps=5, early_stop=0.0, layers=(), queries="text"),
    "controlmllm_plus": cm.ControlMLLMPlus(steps=3, layers=(), queries="text", contrast=0.0),
    "key_steering": cm.methods.KeySteering(steps=1, layers=(), queries="text"),
}


def step_of(setting: Setting, name: str) -> float:
    """Seconds of one step, forward and backward; what is done once for a prompt is done."""
    if name == "reference":
        return seconds(setting.reference)
    return next(iter(cm.Steering(setting.mllm, setting.prompt, REGION, METHODS[name]))).seconds


def answered(setting: Setting, name: str) -> Callable[[], object]:
    """From question to answer: "plain", or steered by a method."""

    def run() -> object:
        prompt = setting.mllm.prepare(setting.prompt.image, QUESTION)
        trace = None if name == "plain" else cm.optimize(setting.mllm, prompt, REGION, METHODS[name])
        return setting.mllm.generate(prompt, trace, **TOKENS)

    return run


def measure(repeats: int) -> dict[str, object]:
    """What `--json` prints."""
    setting = Setting(24)
    names = ["reference", *METHODS]
    runs = {name: answered(setting, name) for name in ("plain", *METHODS)}
    for warm in (*(lambda name=name: step_of(setting, name) for name in names), *runs.values()):
        warm()
    steps: dict[str, list[float]] = {name: [] for name in names}
    spans: dict[str, list[float]] = {name: [] for name in runs}
    for _ in tqdm(range(repeats), "repeats", file=sys.stderr):
        for name in names:
            steps[name].append(step_of(setting, name))
        for name, run in runs.items():
            spans[name].append(seconds(run))
    span = {name: statistics.median(values) for name, values in spans.items()}
    peak = {name: peak_bytes(run) for name, run in runs.items()}
    growth = {}
    for grid in tqdm(GRIDS, "visual tokens", file=sys.stderr):
        larger = Setting(grid)
        growth[grid * grid] = {name: min(step_of(larger, name) for _ in range(3)) for name in METHODS}
    return {
        "device": "cpu",
        "step_seconds": {name: statistics.median(values) for name, values in steps.items()},
        "answer_ratio": {name: span[name] / span["plain"] for name in METHODS},
        "peak_memory_ratio": {name: peak[name] / peak["plain"] for name in METHODS},
        "growth": growth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    found = measure(options.repeats)
    print(json.dumps(found) if options.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
