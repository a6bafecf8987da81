"""Memory of seeing where an answer looks, by its length: `python -m benchmarks.answer [--json]`.

`trace_answer` over answers of 16 to 256 tokens to a random LLaVA (576 visual tokens, 12 layers of 8 heads, width 512):

- stored: numbers in what is kept, counted in their storages, so that a part of something larger counts as all of it;
- captured: numbers of the attention that this is made of, (layer, head, answer token, visual token);
- peak: what torch allocates at most meanwhile above what was there, from its own allocation events. Of a short answer it is
  the model's forward that takes most, of a long one the attention captured.

`growth` is how much more a token takes in the last doubling than in the one before: 1 is linear, 2 quadratic.
"""

import argparse
import json
from typing import Any

import torch

import cmllm_tools as cm
from benchmarks.capture import QUESTION, random_llava
from cmllm_tools.attention.memory import peak_bytes

LENGTHS = (16, 32, 64, 128, 256)


def stored(*tensors: torch.Tensor) -> int:
    """How many numbers are kept with these tensors: all of their storages."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() // each.itemsize for each in tensors}
    return sum(storages.values())


def measure(mllm: cm.Mllm, prompt: cm.Prompt, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    """`{"growth", "peak_mb", "stored", "captured", "lengths"}`, lists by length but for the growth."""
    words = prompt.inputs["input_ids"][0, list(prompt.text_span)].tolist()

    def traced(length: int) -> cm.AnswerTrace:
        return cm.trace_answer(mllm, prompt, answer=(words * length)[:length])

    traced(1)
    peaks = [peak_bytes(lambda length=length: traced(length)) for length in lengths]
    traces = [traced(length) for length in lengths]
    slopes = [(peaks[at + 1] - peaks[at]) / (lengths[at + 1] - lengths[at]) for at in range(len(lengths) - 1)]
    return {
        "growth": slopes[-1] / slopes[-2],
        "peak_mb": [round(peak / 1e6, 1) for peak in peaks],
        "stored": [stored(each.maps, each.shares, each.by_head) for each in traces],
        "captured": [len(each.layers) * len(each.heads) * each.maps.numel() for each in traces],
        "lengths": list(lengths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    mllm = random_llava(24)
    prompt = mllm.prepare(cm.demo_scene().image, QUESTION)
    found = measure(mllm, prompt)
    if options.json:
        print(json.dumps(found))
        return
    for at, length in enumerate(found["lengths"]):
        print(
            f"{length:4d} tokens  {found['peak_mb'][at]:8.1f} MB at most  {found['captured'][at] / 1e6:7.3f} M captured  "
            f"{found['stored'][at] / 1e3:7.1f} k stored"
        )
    print(f"growth {found['growth']:.3f}")


if __name__ == "__main__":
    main()
