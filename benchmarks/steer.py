"""What steering costs, method by method: `python -m benchmarks.steer [--json] [--device cuda] [--model NAME ...]`.

On a random model with 576 visual tokens and 30 of text, interleaved in one process, so that a busy machine slows all alike:

- step_seconds: one step, forward and backward; what is done once for a prompt is done;
- answer_seconds: from image and question to an answer of 10 tokens, plain or steered;
- answer_ratio, peak_memory_ratio: from image and question to a steered answer of 10 tokens, with each method's own number
  of steps, over a plain answer, in time and in the peak of what torch allocates above the model;
- second_question_ratio: another question to one look at the image, over the look and the first question;
- memory_of_cache: what KeySteering's answer takes above a plain one, over the cached keys and values and what a step of the
  text keeps for its backward pass;
- growth: seconds of a step by number of visual tokens; null where a step does not fit into the memory, or would take long.

The reference is the published way: eager attention of all layers kept whole. The models (`benchmarks.steer_models`) are
the LLaVA of `benchmarks.capture` in float32 (12 layers, width 512), LLaVA-1.5-7B and Qwen2.5-VL-7B in bfloat16, and
`smol`, which has 64 visual tokens and no growth. With one model, the object of its figures is printed; with several, one
such object for each name.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import cmllm_tools as cm
from benchmarks.steer_models import MODELS
from cmllm_tools.attention.memory import free_bytes, peak_bytes
from cmllm_tools.models.latent_states import add_latent
from cmllm_tools.models.prefix import prefix_of
from cmllm_tools.models.undisturbed import undisturbed
from cmllm_tools.referring.cost import settle
from cmllm_tools.referring.target import Target

TOKENS = (256, 576, 1024, 4096, 16384)
# Seconds of a step, above which a way is left out of larger sizes: four times the tokens are up to sixteen times as long.
LONG = 5.0
# Bytes of the process for each visual token, at 16 384 of them: 5.2 GB.
BYTES = 320_000
GRID = 24
# 30 tokens with the template's.
FIRST = (
    "describe the object in the picture . is the object at the top left a red circle or a blue seven , "
    "or is there a green cross ?"
)
SECOND = FIRST.replace("top left", "bottom right").replace("circle", "square")
ANSWER = {"max_new_tokens": 10, "min_new_tokens": 10}
REFERENCE = "reference"
# The steps are those published, or the default; early stops would make them differ by luck.
METHODS: dict[str, cm.LatentMethod] = {
    "controlmllm": cm.ControlMLLM(steps=5, early_stop=0.0, layers=(), queries="text"),
    "controlmllm_plus": cm.ControlMLLMPlus(steps=3, layers=(), queries="text", contrast=0.0),
    "key_steering": cm.methods.KeySteering(steps=1, step_size=0.003, layers=(), queries="text"),
}
NAMES = (REFERENCE, *METHODS)


class Setting:
    """A model, an image of `grid` x `grid` visual tokens, and a prompt of both."""

    def __init__(self, model: str, grid: int, device: torch.device):
        made = MODELS[model]
        self.mllm = made.build(grid, device)
        self.device = device
        self.side = grid * made.pixels
        self.image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (self.side, self.side, 3), np.uint8))
        self.region = cm.Box(self.side // 5, self.side // 5, 3 * self.side // 5, 3 * self.side // 5)
        self.prompt = self.mllm.prepare(self.image, FIRST)

    def step(self, name: str) -> float:
        """Seconds of one step."""
        if name == REFERENCE:
            settle(self.device)
            started = time.perf_counter()
            self.reference_gradient(self.prompt, self.prompt.zero_latent())
            settle(self.device)
            return time.perf_counter() - started
        return next(iter(cm.Steering(self.mllm, self.prompt, self.region, METHODS[name]))).seconds

    def answer(self, name: str, question: str, image: Image.Image | cm.Look | None = None) -> object:
        """From image and question to an answer: "plain", or steered by a method; of the image itself, or a look at it."""
        prompt = self.mllm.prepare(self.image if image is None else image, question)
        if name == "plain":
            return self.mllm.generate(prompt, **ANSWER)
        if name == REFERENCE:
            return self.mllm.generate(prompt, self.reference_latent(prompt), **ANSWER)
        trace = cm.optimize(self.mllm, prompt, self.region, METHODS[name])
        return self.mllm.generate(prompt, trace, **ANSWER)

    def reference_latent(self, prompt: cm.Prompt) -> torch.Tensor:
        latent = prompt.zero_latent()
        for _ in range(METHODS["controlmllm"].steps):
            latent = (latent - 400 * self.reference_gradient(prompt, latent)).detach().requires_grad_()
        return latent.detach()

    def reference_gradient(self, prompt: cm.Prompt, latent: torch.Tensor) -> torch.Tensor:
        """The published way: attention of all layers, heads and tokens, kept and averaged."""
        call, config = prompt.call, self.mllm.decoder.config
        target = Target.of(prompt.layout, self.region)
        kept = config._attn_implementation
        config._attn_implementation = "eager"
        try:
            with undisturbed(self.mllm.model, gradient=True):
                states = add_latent(call.states, latent, call.visual, call.rows)
                given = {**call.arguments, call.site.states: states, "use_cache": False, "output_attentions": True}
                attention = torch.cat(call.module(**given).attentions).mean(0)
                values = attention[:, list(prompt.text_span)][..., list(prompt.visual)].float().mean(0).mean(0)
                return torch.autograd.grad(target.to(values).energy(values), latent)[0]
        finally:
            config._attn_implementation = kept

    def fits(self, name: str) -> bool:
        """Whether a step's attention maps would leave half of the memory; only the reference keeps them."""
        tokens, element = len(self.prompt.tokens), 8 if self.mllm.model.dtype == torch.bfloat16 else 12
        maps = self.mllm.layers * self.mllm.heads * tokens**2 * element
        return name != REFERENCE or maps < free_bytes(self.device) / 2

    def seconds(self, name: str) -> tuple[float, float, float]:
        """From image and question to an answer; the same in a look at the image; another question to the same look."""

        def timed(question: str, image: Callable[[], Image.Image | cm.Look]) -> float:
            settle(self.device)
            started = time.perf_counter()
            self.answer(name, question, image())
            settle(self.device)
            return time.perf_counter() - started

        looks = []
        alone = timed(FIRST, lambda: self.image)
        first = timed(FIRST, lambda: looks.append(self.mllm.look(self.image)) or looks[0])
        return alone, first, timed(SECOND, lambda: looks[0])

    def cache_and_activations(self) -> int:
        """Bytes of the cached prefix, and of what KeySteering's step over it keeps of the text for its backward pass."""
        prefix, kept, whole = prefix_of(self.mllm, self.prompt), {}, set()
        cached = [each.untyped_storage() for layer in prefix.layers for each in layer]
        weights = {each.untyped_storage().data_ptr() for each in self.mllm.model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            # The storage itself, as what is freed may be another's next.
            storage = kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            # Keys and values of the whole sequence are the cache's.
            if (
                tensor.dim() == 4
                and tensor.shape[1::2] == prefix.layers[0][0].shape[1::2]
                and tensor.shape[2] > prefix.length
            ):
                whole.add(storage.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.step("key_steering")
        texts = [each for at, each in kept.items() if at not in whole | weights]
        return sum(each.nbytes() for each in [*cached, *texts])

    def least(self, name: str, repeats: int) -> float | None:
        """Seconds of the quickest step; None where the memory is too small for one."""
        try:
            return min(self.step(name) for _ in range(repeats)) if self.fits(name) else None
        except torch.OutOfMemoryError:
            return None


def _freed() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def growth(model: str, tokens: Sequence[int], device: torch.device, until: float) -> dict[int, dict[str, float | None]]:
    """Seconds of a step by number of visual tokens; sizes for which no time or memory is left are left out."""
    found: dict[int, dict[str, float | None]] = {}
    left = list(NAMES)
    for count in tqdm(sorted(tokens), f"{model}: visual tokens", file=sys.stderr):
        if time.perf_counter() > until or not left or (device.type == "cpu" and free_bytes(device) < count * BYTES):
            break
        _freed()
        setting = Setting(model, round(count**0.5), device)
        found[count] = dict.fromkeys(NAMES)
        for name in left:
            found[count][name] = setting.least(name, 3)
            _freed()
        left = [name for name in left if (seconds := found[count][name]) is not None and seconds < LONG]
        setting = None
    return found


def interleaved(setting: Setting, name: str, repeats: int, until: float) -> dict[str, object]:
    """All figures of one size: every way in turn, and again."""
    ways = ("plain", *NAMES)
    for way in NAMES:
        setting.step(way)
    for way in ways:
        setting.seconds(way)
    peak = {way: peak_bytes(partial(setting.answer, way, FIRST), setting.device) for way in ways}
    steps: dict[str, list[float]] = {way: [] for way in NAMES}
    spans: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for done in tqdm(range(repeats), f"{name}: repeats", file=sys.stderr):
        if done and time.perf_counter() > until:
            break
        for way in NAMES:
            steps[way].append(setting.step(way))
        for way, values in spans.items():
            values.append(setting.seconds(way))
    span = {way: [statistics.median(each) for each in zip(*values, strict=True)] for way, values in spans.items()}
    return {
        "step_seconds": {way: statistics.median(values) for way, values in steps.items()},
        "answer_seconds": {way: span[way][0] for way in ways},
        "answer_ratio": {way: span[way][0] / span["plain"][0] for way in NAMES},
        "second_question_ratio": {way: span[way][2] / span[way][1] for way in ways},
        "peak_memory_ratio": {way: peak[way] / peak["plain"] for way in NAMES},
        "memory_of_cache": (peak["key_steering"] - peak["plain"]) / setting.cache_and_activations(),
    }


def measure(model: str, tokens: Sequence[int], device: torch.device, repeats: int, seconds: float) -> dict[str, object]:
    """What `--json` prints of one model, in about so many seconds."""
    started, own = time.perf_counter(), MODELS[model].grid
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        **interleaved(Setting(model, own or GRID, device), model, repeats, started + seconds / 2),
        "growth": {} if own else growth(model, tokens, device, started + seconds),
    }


def square(text: str) -> int:
    count = int(text)
    if round(count**0.5) ** 2 != count:
        raise argparse.ArgumentTypeError(f"must be the square of a whole number, as 576; got {text}")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", choices=list(MODELS), nargs="+", default=["small"])
    parser.add_argument("--tokens", type=square, nargs="*", help="visual tokens of the steps' growth, squares")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1800, help="about how long all models take; growth is cut short")
    options = parser.parse_args()
    device = torch.device(options.device)
    tokens = TOKENS if options.tokens is None else options.tokens
    found = {}
    for name in options.model:
        found[name] = measure(name, tokens, device, options.repeats, options.seconds / len(options.model))
        _freed()
    result = next(iter(found.values())) if len(found) == 1 else found
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
