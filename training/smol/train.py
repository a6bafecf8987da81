"""Train the eyes of `smol`: `python -m training.smol.train --pictures FILE --language FOLDER --out FOLDER`.

Two stages, nothing of the language model is trained in either. *Words*: each visual token learns its word's place among the
language model's input embeddings, of which nothing else is run. *Language*: the language model's own loss on answers to
questions, through its frozen layers, beside the first stage's loss.

An interrupted run goes on from its last checkpoint. How long a stage learns is given in minutes, and the rate follows the
clock: the same minutes see more scenes on a faster machine.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from cmllm_tools.files import write_text, write_whole
from cmllm_tools.models.smol import SPARE_TOKEN, SYSTEM, build_config

from ..checkpoints import load_checkpoint, save_checkpoint
from .language import Seen, place, sample_turn
from .scenes import BACKGROUND, PLAIN, STRONG, UNSURE, Painter, Scenes, Variation, gentler
from .world import HELD_OUT, SHOWN, TRAINED, owners, photographs, read_pictures, things

SEED = 20261126
CHECKPOINT_SECONDS = 60
# How a cosine becomes a logit, and what the share of background in the loss is.
SHARPNESS, BACKGROUND_WEIGHT = 20.0, 0.2
# Of the mean squared distance from the word's embedding, beside the cross-entropy.
CLOSENESS = 0.5


@dataclass(frozen=True)
class Stage:
    """How one stage learns: scenes a step, peak rate, and the share of the distortions of `STRONG`."""

    scenes: int
    rate: float
    strength: float


STAGES = {"words": Stage(512, 1.5e-3, 1.0), "language": Stage(96, 3e-4, 0.5)}


class Words(nn.Module):
    """The words' places among the language model's input embeddings, and how near visual tokens are to them.

    Args:
        embeddings: (1 + things, width) of background and of each thing's name.
    """

    embeddings: Tensor
    middle: Tensor

    def __init__(self, embeddings: Tensor):
        super().__init__()
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("middle", embeddings.mean(0), persistent=False)

    def logits(self, visual: Tensor) -> Tensor:
        """(..., 1 + things) of visual tokens (..., width); words have much in common, which says nothing."""
        apart = F.normalize(self.embeddings - self.middle, dim=-1)
        return SHARPNESS * F.normalize(visual.float() - self.middle, dim=-1) @ apart.T

    def loss(self, visual: Tensor, words: Tensor) -> Tensor:
        """Of visual tokens (scene, token, width) that should be `words` (scene, CELLS, CELLS)."""
        targets = words.flatten()
        known = targets != UNSURE
        weights = torch.where(targets[known] == BACKGROUND, BACKGROUND_WEIGHT, 1.0)
        entropy = F.cross_entropy(
            self.logits(visual.flatten(0, 1)[known]), targets[known], reduction="none", label_smoothing=0.05
        )
        wanted = self.embeddings[targets[known]]
        distance = (visual.flatten(0, 1)[known].float() - wanted).square().sum(-1) / self.embeddings.square().sum(-1).mean()
        return (weights * (entropy + CLOSENESS * distance)).sum() / weights.sum()

    def right(self, visual: Tensor, words: Tensor) -> Tensor:
        """Share of covered visual tokens whose nearest word is right."""
        covered = words.flatten() > BACKGROUND
        found = self.logits(visual.flatten(0, 1)[covered]).argmax(-1)
        return (found == words.flatten()[covered]).float().mean()


class Trainer:
    """Holds the model and one stage's optimizer, and its checkpoint.

    Args:
        pictures: from `training.smol.pictures`.
        language: folder of SmolLM2.
        out: where checkpoint and eyes are written.
        strength: share of the distortions, of those that a stage has.
    """

    def __init__(self, pictures: Path, language: Path, out: Path, device: torch.device, strength: float = 1.0):
        self.out, self.device, self.strength = out, device, strength
        torch.manual_seed(SEED)
        self.names = list(things())
        self.tokenizer = AutoTokenizer.from_pretrained(language)
        # Ends a turn, and pads.
        self.end = self._word("<|im_end|>")
        decoder = AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32)
        config = build_config(decoder.config, self.tokenizer.convert_tokens_to_ids(SPARE_TOKEN))
        config.text_config.num_hidden_layers = 1
        whole = LlavaForConditionalGeneration(config)
        self.eyes = nn.ModuleDict(
            {"vision_tower": whole.model.vision_tower, "multi_modal_projector": whole.model.multi_modal_projector}
        ).to(device)
        self._features = whole.model.to(device)
        self.decoder = decoder.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).requires_grad_(False)
        ids = [self._word(" ."), *(self._word(f" {name}") for name in self.names)]
        self.words = Words(decoder.get_input_embeddings().weight[ids].float()).to(device)
        found = read_pictures(pictures)
        self._pictures = {name: torch.from_numpy(found[name]).to(device) for name in (*TRAINED, HELD_OUT)}
        self._owners = owners().to(device)
        self._photographs = photographs().to(device)
        self.history: list[dict[str, Any]] = []

    def _word(self, text: str) -> int:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise SystemExit(f"{text!r} must be one token; it is {len(ids)}.")
        return int(ids[0])

    def painter(self, styles: tuple[str, ...], seed: int) -> Painter:
        generator = torch.Generator(self.device).manual_seed(seed)
        chosen = torch.stack([self._pictures[style] for style in styles])
        return Painter(chosen, self._owners, self._photographs, generator)

    def look(self, images: Tensor) -> Tensor:
        """Visual tokens (scene, token, width) of images (scene, 3, side, side) in 0..1."""
        found = self._features.get_image_features(pixel_values=2 * images - 1, return_dict=True).pooler_output
        return torch.stack(tuple(found))

    def run(self, stage: str, minutes: float) -> None:
        plan, budget = STAGES[stage], 60 * minutes
        optimizer = torch.optim.AdamW(self.eyes.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.05)
        step, spent = self.resume(stage, optimizer)
        painter = self.painter(TRAINED, SEED + 1000 * (1 + list(STAGES).index(stage)) + step)
        rng = random.Random(f"{SEED} {stage} {step}")
        varied = gentler(STRONG, plan.strength * self.strength)
        started = saved = time.perf_counter()
        before, self._mean = spent, None
        self.eyes.train()
        with tqdm(total=round(budget), initial=round(min(spent, budget)), desc=stage, unit="s", mininterval=5) as bar:
            while spent < budget:
                warm = min(1.0, (step + 1) / 300)
                decay = 0.01 + 0.99 * (1 + math.cos(math.pi * spent / budget)) / 2
                optimizer.param_groups[0]["lr"] = plan.rate * warm * decay
                scenes = painter.draw(plan.scenes, varied)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                    visual = self.look(scenes.images)
                loss = self.words.loss(visual, scenes.words)
                if stage == "language":
                    loss = loss + self.language_loss(visual, scenes, rng)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.eyes.parameters(), 1.0)
                optimizer.step()
                step += 1
                if step % 20 == 0:
                    # Waits for the device, so that the clock is right.
                    self._mean = loss.item() if self._mean is None else 0.9 * self._mean + 0.1 * loss.item()
                now = time.perf_counter()
                bar.update(round(before + now - started) - round(spent))
                spent = before + now - started
                if now - saved > CHECKPOINT_SECONDS or spent >= budget:
                    saved = now
                    self.note(stage, step, spent)
                    self.save(stage, step, spent, optimizer)

    def note(self, stage: str, step: int, spent: float) -> None:
        figures = {name: round(self.measure(styles), 4) for name, styles in (("seen", SHOWN), ("held_out", (HELD_OUT,)))}
        self.history.append({"stage": stage, "step": step, "seconds": round(spent), "loss": self._mean, **figures})
        tqdm.write(json.dumps(self.history[-1]))

    @torch.inference_mode()
    def measure(self, styles: tuple[str, ...], count: int = 1024, varied: Variation = PLAIN) -> float:
        """Share of covered visual tokens whose word is right, on scenes that no training saw."""
        self.eyes.eval()
        painter, found = self.painter(styles, SEED - 1), []
        for _ in range(0, count, 256):
            scenes = painter.draw(256, varied)
            found.append(self.words.right(self.look(scenes.images), scenes.words))
        self.eyes.train()
        return torch.stack(found).mean().item()

    def language_loss(self, visual: Tensor, scenes: Scenes, rng: random.Random) -> Tensor:
        """Mean negative log-likelihood of the answers' tokens."""
        before, after, starts = self._turns(scenes, rng)
        embed = self.decoder.get_input_embeddings()
        first = embed(before).expand(len(visual), -1, -1)
        inputs = torch.cat([first, visual.to(first), embed(after)], 1)
        hidden = self.decoder.model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, -after.shape[1] :]
        at = torch.arange(after.shape[1], device=self.device)
        # The end of a turn is the padding token too: the first one after the answer is learnt.
        told = (at >= starts[:, None]) & ((after != self.end) | ((after == self.end).cumsum(1) == 2))
        learned = hidden[:, :-1][told[:, 1:]]
        return F.cross_entropy(self.decoder.lm_head(learned).float(), after[:, 1:][told[:, 1:]])

    def _turns(self, scenes: Scenes, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens before the image (1, n), after it (scene, m) padded, and where in the latter each answer starts."""
        at = torch.linspace(0, 1, scenes.masks.shape[-1], device=self.device)
        weight = scenes.masks.sum((2, 3)).clamp_min(1e-6)
        x, y = (scenes.masks.sum(2) @ at / weight).tolist(), (scenes.masks.sum(3) @ at / weight).tolist()
        asked, told = [], []
        for row, numbers in enumerate(scenes.things.tolist()):
            seen = [Seen(self.names[n], place(x[row][i], y[row][i])) for i, n in enumerate(numbers) if n >= 0]
            question, answer = sample_turn(rng, seen, self.names)
            asked.append(f"\n{question}<|im_end|>\n<|im_start|>assistant\n")
            told.append(f"{answer}<|im_end|>")
        before = self.tokenizer(
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n", add_special_tokens=False, return_tensors="pt"
        )
        questions = self.tokenizer(asked, add_special_tokens=False).input_ids
        answers = self.tokenizer(told, add_special_tokens=False).input_ids
        rows = [one + other for one, other in zip(questions, answers, strict=True)]
        width = max(map(len, rows))
        after = torch.tensor([row + [self.end] * (width - len(row)) for row in rows])
        starts = torch.tensor([len(one) for one in questions])
        return before.input_ids.to(self.device), after.to(self.device), starts.to(self.device)

    def export(self, name: str) -> None:
        """Write the eyes alone, in bfloat16."""
        tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in self.eyes.state_dict().items()}
        whole = save(tensors)
        write_whole(self.out / name, lambda file: file.write(whole))

    def save(self, stage: str, step: int, spent: float, optimizer: torch.optim.Optimizer) -> None:
        metadata = {"stage": stage, "step": str(step), "spent": str(spent), "history": json.dumps(self.history)}
        save_checkpoint(self.out / "checkpoint.safetensors", {"eyes": self.eyes}, optimizer, metadata)

    def resume(self, stage: str, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Load the last checkpoint, if there is one; steps and seconds that `stage` has behind it."""
        found = load_checkpoint(self.out / "checkpoint.safetensors", {"eyes": self.eyes}, self.device)
        if found is None:
            return 0, 0.0
        metadata, state = found
        self.history = json.loads(metadata["history"])
        order = list(STAGES)
        if order.index(metadata["stage"]) != order.index(stage):
            return (0, math.inf) if order.index(metadata["stage"]) > order.index(stage) else (0, 0.0)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["step"]), float(metadata["spent"])


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="made by python -m training.smol.pictures")
    parser.add_argument("--language", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=Path(".cache/smol"), help="checkpoint and eyes")
    parser.add_argument("--start", type=Path, help="eyes to go on from, instead of random ones")
    parser.add_argument("--minutes", type=float, nargs=2, default=(60.0, 60.0), help="for each of the two stages")
    parser.add_argument("--strength", type=float, default=1.0, help="share of the distortions of training scenes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options.pictures, options.language, options.out, torch.device(options.device), options.strength)
    if options.start:
        trainer.eyes.load_state_dict(load_file(options.start))
    for stage, minutes in zip(STAGES, options.minutes, strict=True):
        if minutes:
            trainer.run(stage, minutes)
            trainer.export(f"eyes-{stage}.safetensors")
    write_text(options.out / "history.json", json.dumps(trainer.history, indent=1))


if __name__ == "__main__":
    main()
