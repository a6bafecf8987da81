"""Train the embedded model from scratch: `python -m cmllm_tools.models.embedded.train`.

Two kinds of stage, each run twice.
*Vision*: the tower and projector learn, for every visual token, the colour, kind and mark of what it covers.
*Language*: the whole model learns questions and answers; the turns about one image share its visual tokens and do not
see each other, so that each is answered as if it stood alone.

An interrupted run goes on from its last checkpoint, with the same batches as an uninterrupted one.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from cmllm_tools.files import write_text

from ..checkpoints import load_checkpoint, save_checkpoint
from .architecture import GRID, build_model, build_processor
from .corpus import Corpus, load_corpus
from .language import BOS, EOS, Named, sample_turn, vocabulary
from .scenes import COLORS, DIGITS, KINDS, PLACES

SEED = 20261122
TOKENS = GRID * GRID
# Text tokens kept for the turns about one image; about eight turns fit.
TURN_BUDGET = 112
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Stage:
    """How long and how fast one stage learns."""

    steps: int
    images: int
    rate: float
    vision_rate: float


STAGES = {
    "vision": Stage(steps=4000, images=64, rate=1e-3, vision_rate=1e-3),
    "language": Stage(steps=5000, images=32, rate=1e-3, vision_rate=3e-4),
    # Once the language side works, digits and marks that the tower confuses are what is left to gain.
    "vision again": Stage(steps=6000, images=64, rate=7e-4, vision_rate=7e-4),
    "language again": Stage(steps=5300, images=32, rate=8e-4, vision_rate=2e-4),
}
# Digits are harder to tell apart than shapes, marks rarer than their absence, background the easiest.
DIGIT_WEIGHT, MARK_WEIGHT, BACKGROUND_WEIGHT = 2.0, 2.0, 0.5


class DenseLabels(nn.Module):
    """Training-only heads: colour, kind and mark of what each visual token covers (background is class 0)."""

    def __init__(self, width: int):
        super().__init__()
        self.sizes = (len(COLORS) + 1, len(KINDS) + 1, 2)
        self.head = nn.Linear(width, sum(self.sizes))
        kinds = [DIGIT_WEIGHT if kind in DIGITS else 1.0 for kind in KINDS]
        weights = ([BACKGROUND_WEIGHT] + [1.0] * len(COLORS), [BACKGROUND_WEIGHT, *kinds], [1.0, MARK_WEIGHT])
        for number, weight in enumerate(weights):
            self.register_buffer(f"weight_{number}", torch.tensor(weight), persistent=False)

    def losses(self, visual: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy, and the share of covered tokens whose colour and kind are both right.

        visual (batch, token, width); labels (batch, token, 3).
        """
        parts = self.head(visual).float().split(self.sizes, dim=-1)
        losses = [
            F.cross_entropy(part.flatten(0, 1), labels[..., i].flatten(), getattr(self, f"weight_{i}"))
            for i, part in enumerate(parts)
        ]
        # What an overlay covers is the hardest to read, and what questions about marked scenes ask for.
        marked = labels[..., 2] > 0
        read = F.cross_entropy(parts[1][marked], labels[marked][:, 1], reduction="sum")
        losses.append(read / marked.sum().clamp(min=1))
        right = torch.stack([part.argmax(-1) == labels[..., i] for i, part in enumerate(parts[:2])]).all(0)
        return torch.stack(losses).sum(), right[labels[..., 0] > 0].float().mean()


def dense_labels(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """(scene, token, 3): colour, kind (0 is background) and mark of the object each visual token covers."""
    owner = corpus.tokens[rows].astype(int)
    covered = owner >= 0
    pick = np.where(covered, owner, 0)
    colors = np.take_along_axis(corpus.colors[rows], pick, 1) + 1
    kinds = np.take_along_axis(corpus.kinds[rows], pick, 1) + 1
    marks = owner == corpus.marked[rows][:, None]
    return np.stack([colors * covered, kinds * covered, marks & covered], -1).astype(np.int64)


def pixel_values(corpus: Corpus, rows: np.ndarray) -> torch.Tensor:
    """(row, 3, height, width) in -1..1, as the vision tower takes them."""
    return torch.from_numpy(corpus.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1


class TurnPacker:
    """Packs several turns behind one image prefix: (tokens, positions, segments, targets), each (text,)."""

    def __init__(self) -> None:
        self.words = vocabulary()
        self.prefix = [self.words[word] for word in (BOS, "user", ":")]
        self.start = len(self.prefix) + TOKENS

    def pack(self, corpus: Corpus, row: int, rng: random.Random) -> np.ndarray:
        """(4, TURN_BUDGET) int64; segment 0 is padding, target -100 is not learned."""
        objects = [
            Named(list(COLORS)[color], KINDS[kind], PLACES[place])
            for color, kind, place in zip(corpus.colors[row], corpus.kinds[row], corpus.places[row], strict=True)
            if color >= 0
        ]
        marked = int(corpus.marked[row])
        packed = np.zeros((4, TURN_BUDGET), np.int64)
        packed[3] = -100
        used = segment = 0
        while True:
            question, answer = sample_turn(rng, objects, marked if marked >= 0 else None)
            asked = [self.words[word] for word in f"{question} assistant :".split()]
            told = [self.words[word] for word in f"{answer} {EOS}".split()]
            length = len(asked) + len(told) - 1
            if used + length > TURN_BUDGET:
                return packed
            segment += 1
            span = slice(used, used + length)
            packed[0, span] = (asked + told)[:-1]
            packed[1, span] = self.start + np.arange(length)
            packed[2, span] = segment
            packed[3, used + len(asked) - 1 : used + length] = told
            used += length


class Trainer:
    """Holds model, label heads and optimizer of one stage, and its checkpoint."""

    def __init__(self, out: Path, corpus: Corpus, device: torch.device):
        self.out, self.corpus, self.device = out, corpus, device
        torch.manual_seed(SEED)
        self.model = build_model().to(device)
        AttentionInterface.register("float32_sdpa", float32_attention)
        AttentionMaskInterface.register("float32_sdpa", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        if device.type == "cpu":
            self.model.set_attn_implementation("float32_sdpa")
        self.labels = DenseLabels(self.model.config.text_config.hidden_size).to(device)
        self.packer = TurnPacker()
        self.history: list[dict[str, Any]] = []

    # A step's batch depends on the seed, the stage and its number only: that makes a resumed run the same run.
    def rows(self, stage: str, step: int) -> np.ndarray:
        images = STAGES[stage].images
        per_epoch = len(self.corpus) // images
        epoch, index = divmod(step, per_epoch)
        order = np.random.default_rng([SEED, list(STAGES).index(stage), epoch]).permutation(len(self.corpus))
        return order[index * images : (index + 1) * images]

    def visual_tokens(self, rows: np.ndarray) -> torch.Tensor:
        pixels = pixel_values(self.corpus, rows).to(self.device)
        return torch.stack(tuple(self.model.get_image_features(pixels, return_dict=True).pooler_output))

    def vision_loss(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(dense_labels(self.corpus, rows)).to(self.device)
        return self.labels.losses(self.visual_tokens(rows), labels)

    def language_loss(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(f"{SEED}-{rows.tolist()}")
        packed = np.stack([self.packer.pack(self.corpus, row, rng) for row in rows])
        tokens, positions, segments, targets = torch.from_numpy(packed).to(self.device).unbind(1)
        visual = self.visual_tokens(rows)
        language_model = self.model.model.language_model
        embed = language_model.embed_tokens
        prefix = embed(torch.tensor(self.packer.prefix, device=self.device)).expand(len(rows), -1, -1)
        start = self.packer.start
        inputs = torch.cat([prefix, visual, embed(tokens)], 1)
        positions = torch.cat([torch.arange(start, device=self.device).expand(len(rows), -1), positions], 1)
        segments = F.pad(segments, (start, 0))
        hidden = language_model(
            inputs_embeds=inputs,
            position_ids=positions,
            attention_mask=turn_mask(segments, start),
            use_cache=False,
        ).last_hidden_state[:, start:]
        learned = targets != -100
        logits = self.model.lm_head(hidden[learned]).float()
        labels = torch.from_numpy(dense_labels(self.corpus, rows)).to(self.device)
        loss = F.cross_entropy(logits, targets[learned]) + 0.1 * self.labels.losses(visual, labels)[0]
        return loss, (logits.argmax(-1) == targets[learned]).float().mean()

    def run(self, stage: str) -> None:
        plan = STAGES[stage]
        loss_of: Callable[..., Any] = {"vision": self.vision_loss, "language": self.language_loss}[
            stage.split(maxsplit=1)[0]
        ]
        optimizer = torch.optim.AdamW(self._groups(plan), betas=(0.9, 0.98), weight_decay=0.05)
        first = self.resume(stage, optimizer)
        mean_loss = mean_right = None
        started = time.perf_counter()
        for step in (bar := tqdm(range(first, plan.steps), stage, plan.steps, initial=first, mininterval=5)):
            warm = min(1.0, (step + 1) / 200)
            decay = 0.02 + 0.98 * (1 + math.cos(math.pi * step / plan.steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warm * decay
            with torch.autocast(self.device.type, torch.bfloat16):
                loss, right = loss_of(self.rows(stage, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters(), 1.0)
            optimizer.step()
            mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
            mean_right = right.item() if mean_right is None else 0.98 * mean_right + 0.02 * right.item()
            if (step + 1) % 50 == 0:
                bar.set_postfix(loss=f"{mean_loss:.3f}", right=f"{mean_right:.3f}")
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == plan.steps:
                seconds = time.perf_counter() - started
                started = time.perf_counter()
                self.history.append(
                    {"stage": stage, "step": step + 1, "loss": mean_loss, "right": mean_right, "seconds": seconds}
                )
                self.save(stage, step + 1, optimizer)

    def _groups(self, plan: Stage) -> list[dict[str, Any]]:
        vision = list(self.model.model.vision_tower.parameters())
        known = {id(parameter) for parameter in vision}
        rest = [parameter for parameter in self._parameters() if id(parameter) not in known]
        return [{"params": vision, "peak": plan.vision_rate}, {"params": rest, "peak": plan.rate}]

    @property
    def _parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "labels": self.labels}

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.labels.parameters()]

    def save(self, stage: str, step: int, optimizer: torch.optim.Optimizer) -> None:
        metadata = {"stage": stage, "step": str(step), "history": json.dumps(self.history)}
        save_checkpoint(self.out / "checkpoint.safetensors", self._parts, optimizer, metadata)

    def resume(self, stage: str, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint, if there is one; returns the step of `stage` to go on from."""
        found = load_checkpoint(self.out / "checkpoint.safetensors", self._parts, self.device)
        if found is None:
            return 0
        metadata, state = found
        self.history = json.loads(metadata["history"])
        order = list(STAGES)
        if order.index(metadata["stage"]) > order.index(stage):
            return STAGES[stage].steps
        if metadata["stage"] != stage:
            return 0
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["step"])

    def export(self, folder: Path) -> None:
        """Write model (bfloat16), processor and generation config to `folder`, for plain `from_pretrained`."""
        model = build_model()
        model.load_state_dict(self.model.state_dict())
        model.generation_config.update(do_sample=False, max_new_tokens=16)
        model.to(torch.bfloat16).save_pretrained(folder)
        build_processor().save_pretrained(folder)


def turn_mask(segments: torch.Tensor, start: int) -> torch.Tensor:
    """Boolean (batch, 1, query, key): causal; the first `start` keys for all, the rest within their turn."""
    length = segments.shape[1]
    index = torch.arange(length, device=segments.device)
    causal = index[:, None] >= index[None, :]
    same = (segments[:, :, None] == segments[:, None, :]) | (index < start)
    return (causal & same)[:, None]


def float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    """Attention outside autocast: on a CPU the bfloat16 kernel takes twice the time of the float32 one."""
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(".cache/embedded"), help="corpus, checkpoint, exported model")
    parser.add_argument("--scenes", type=int, default=100_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    corpus = load_corpus(options.out, options.scenes, SEED)
    trainer = Trainer(options.out, corpus, torch.device(options.device))
    for stage in STAGES:
        trainer.run(stage)
    trainer.export(options.out / "model")
    write_text(options.out / "history.json", json.dumps(trainer.history, indent=1))


if __name__ == "__main__":
    main()
