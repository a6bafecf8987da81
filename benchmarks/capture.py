"""One optimisation step, ours beside the published way and beside a floor: `python -m benchmarks.capture [--json]`.

All on one random LLaVA (576 visual tokens, 12 layers, width 512, float32), in one process, interleaved:

- reference: eager attention of all layers kept whole, averaged, energy, gradient to the latent;
- ours: capture of the rows asked for, all layers, with gradient checkpointing too, and the middle half of the layers;
- floor: plain SDPA forward through the layers needed and a backward pass to the latent, capturing nothing.

Then time and memory of our step from 256 to 4096 visual tokens. Memory is the peak of what torch allocates above the
model, from its own allocation events.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import cmllm_tools as cm
from cmllm_tools.attention.memory import peak_bytes
from cmllm_tools.models.undisturbed import undisturbed
from cmllm_tools.referring.target import Target
from training.embedded.architecture import build_processor
from training.embedded.language import BOS, EOS, IMAGE, PAD, vocabulary

LAYERS, WIDTH, PATCH = 12, 512, 14
WINDOW = range(LAYERS // 4, 3 * LAYERS // 4)
QUESTION = "is the object a red circle or a blue seven ?"
GRIDS = (16, 24, 32, 45, 64)


def random_llava(grid: int, positions: int = 8192) -> cm.Mllm:
    """A random LLaVA whose image is `grid` x `grid` visual tokens; its vision tower is small, it runs once."""
    words = vocabulary()
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=grid * PATCH,
            patch_size=PATCH,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=1376,
            num_hidden_layers=LAYERS,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=positions,
            bos_token_id=words[BOS],
            eos_token_id=words[EOS],
            pad_token_id=words[PAD],
        ).to_dict(),
        image_token_index=words[IMAGE],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    processor = build_processor(grid * PATCH, PATCH)
    return cm.Mllm(LlavaForConditionalGeneration(config).eval(), processor, name=f"random LLaVA, {grid * grid} tokens")


class Setting:
    """A prompt, a region, and one step of each kind; a step returns the gradient to the latent."""

    def __init__(self, grid: int):
        self.mllm = random_llava(grid)
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
        self.prompt = self.mllm.prepare(image, QUESTION)
        self.target = Target.of(self.prompt.layout, cm.Box(40, 40, 120, 120))

    def ours(self, layers: range | None = None) -> torch.Tensor:
        latent = self.prompt.zero_latent()
        attention = cm.capture_attention(self.mllm, self.prompt, layers=layers, latent=latent)
        return torch.autograd.grad(self.target.energy(cm.context_map(attention).values), latent)[0]

    def checkpointed(self) -> torch.Tensor:
        self.mllm.gradient_checkpointing = True
        try:
            return self.ours()
        finally:
            self.mllm.gradient_checkpointing = False

    def reference(self) -> torch.Tensor:
        latent, prompt, decoder = self.prompt.zero_latent(), self.prompt, self.mllm.decoder
        rows, columns = list(prompt.text_span), list(prompt.visual)
        decoder.config._attn_implementation = "eager"
        try:
            with undisturbed(self.mllm.model, gradient=True):
                embeds = prompt.call.states.index_add(1, prompt.call.visual, latent[None])
                output = decoder(inputs_embeds=embeds, use_cache=False, output_attentions=True)
                kept = torch.cat(output.attentions).mean(0)
                values = kept[:, rows][..., columns].mean(0).mean(0)
                return torch.autograd.grad(self.target.energy(values), latent)[0]
        finally:
            decoder.config._attn_implementation = "sdpa"

    def floor(self, layers: range | None = None) -> torch.Tensor:
        latent, decoder = self.prompt.zero_latent(), self.mllm.decoder
        every = decoder.layers
        try:
            decoder.layers = every[: layers.stop] if layers else every
            with undisturbed(self.mllm.model, gradient=True):
                hidden = self.prompt.call.replay(latent).last_hidden_state
            text = hidden[:, list(self.prompt.text_span)]
            return torch.autograd.grad(text.square().mean(), latent)[0]
        finally:
            decoder.layers = every


def seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of a straight line through the logarithms: 1 is linear growth, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(repeats: int) -> tuple[dict[str, float], dict[str, object]]:
    """The summary that `--json` prints, and the figures behind it."""
    setting = Setting(24)
    steps: dict[str, Callable[[], torch.Tensor]] = {
        "reference": setting.reference,
        "ours": setting.ours,
        "ours, checkpointed": setting.checkpointed,
        "floor": setting.floor,
        "ours, window": lambda: setting.ours(WINDOW),
        "floor, window": lambda: setting.floor(WINDOW),
    }
    expected, found = setting.reference(), setting.ours()
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(repeats), "steps", file=sys.stderr):
        for name, step in steps.items():
            times[name].append(seconds(step))
    median = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: peak_bytes(step) for name, step in steps.items()}
    growth = []
    for grid in tqdm(GRIDS, "visual tokens", file=sys.stderr):
        larger = Setting(grid)
        larger.ours()
        growth.append((grid * grid, min(seconds(larger.ours) for _ in range(2)), peak_bytes(larger.ours)))
    sizes, spans, peaks = (list(column) for column in zip(*growth, strict=True))
    summary = {
        "grad_rel_diff": ((found - expected).norm() / expected.norm()).item(),
        "step_ratio_to_floor": max(median["ours"] / median["floor"], median["ours, window"] / median["floor, window"]),
        "speedup_all_layers": median["reference"] / median["ours"],
        "speedup_window": median["reference"] / median["ours, window"],
        "memory_ratio_to_reference": memory["ours"] / memory["reference"],
        "memory_ratio_checkpointed": memory["ours, checkpointed"] / memory["reference"],
        "time_ratio_checkpointed": median["ours, checkpointed"] / median["ours"],
        "memory_growth_exponent": exponent(sizes, peaks),
        "time_growth_exponent": exponent(sizes, spans),
    }
    details = {"median_seconds": median, "peak_mb": {name: value / 1e6 for name, value in memory.items()}}
    return summary, details | {"growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    summary, details = measure(options.repeats)
    if options.json:
        print(json.dumps(summary))
        return
    for name, value in details["median_seconds"].items():
        print(f"{name:18s} {value:7.3f} s  {details['peak_mb'][name]:8.1f} MB above the model")
    for tokens, span, peak in details["growth"]:
        print(f"{tokens:5d} visual tokens  {span:7.3f} s  {peak / 1e6:8.1f} MB")
    for name, value in summary.items():
        print(f"{name:26s} {value:.4g}")


if __name__ == "__main__":
    main()
