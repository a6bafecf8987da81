"""Train the embedded model from scratch: `python -m training.embedded.train`.

Two kinds of stage, each run twice.
*Vision*: the tower and projector learn, for every visual token, the colour, kind and mark of what it covers.
*Language*: the whole model learns questions and answers; the turns about one image share its visual tokens and do not
see each other, so that each is answered as if it stood alone.

An interrupted run goes on from its last checkpoint, with the same batches as an uninterrupted one. With `--minutes`, the
clock says how long a stage learns and how its rate falls, so that the run ends in time on any machine.

`--no-marks` trains on the same scenes with no mark drawn into any: the model that `cm.load("embedded-no-marks")` gives.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from cmllm_tools.files import write_text

from ..checkpoints import load_checkpoint, save_checkpoint
from .architecture import build_model, build_processor
from .batches import Batch, Batches, TurnPacker
from .corpus import Corpus, load_corpus
from .scenes import COLORS, DIGITS, KINDS

SEED = 20261122
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Stage:
    """How long and how fast one stage learns; `share` is its part of the time where the clock decides."""

    steps: int
    images: int
    rate: float
    vision_rate: float
    share: float = 0.25


STAGES = {
    "vision": Stage(steps=4000, images=64, rate=1e-3, vision_rate=1e-3, share=0.2),
    "language": Stage(steps=5000, images=32, rate=1e-3, vision_rate=3e-4, share=0.35),
    # Once the language side works, digits and marks that the tower confuses are what is left to gain.
    "vision again": Stage(steps=6000, images=64, rate=7e-4, vision_rate=7e-4, share=0.15),
    "language again": Stage(steps=5300, images=32, rate=8e-4, vision_rate=2e-4, share=0.3),
}
# Digits are harder to tell apart than shapes, marks rarer than their absence, background the easiest.
DIGIT_WEIGHT, MARK_WEIGHT, BACKGROUND_WEIGHT = 2.0, 2.0, 0.5


@dataclass(frozen=True)
class Pace:
    """How a run differs from the one that `STAGES` plans, made for two CPU cores.

    Args:
        minutes: for all stages together; the stages' numbers of steps where None.
        images: factor on the images of a step.
        rate: factor on the peak rates.
        workers: processes that make batches ahead; none where 0.
    """

    minutes: float | None = None
    images: int = 1
    rate: float = 1.0
    workers: int = 0

    def done(self, plan: Stage, step: int, seconds: float) -> float:
        """The part of a stage that is behind it, from 0 to 1 and beyond, after these steps and seconds."""
        return step / plan.steps if self.minutes is None else seconds / (60 * self.minutes * plan.share)


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


class Trainer:
    """Holds model, label heads and optimizer of one stage, and its checkpoint."""

    def __init__(self, out: Path, corpus: Corpus, device: torch.device, pace: Pace = Pace()):
        self.out, self.corpus, self.device, self.pace = out, corpus, device, pace
        torch.manual_seed(SEED)
        self.model = build_model().to(device)
        AttentionInterface.register("float32_sdpa", float32_attention)
        AttentionMaskInterface.register("float32_sdpa", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        if device.type == "cpu":
            self.model.set_attn_implementation("float32_sdpa")
        self.labels = DenseLabels(self.model.config.text_config.hidden_size).to(device)
        self.packer = TurnPacker()
        self.pixels = torch.from_numpy(corpus.pixels).to(device)
        self.history: list[dict[str, Any]] = []

    def batches(self, stage: str, first: int) -> Iterable[Batch]:
        """The stage's batches from step `first` on; without end where the clock decides."""
        plan = STAGES[stage]
        known = Batches(self.corpus, stage, (SEED, list(STAGES).index(stage)), plan.images * self.pace.images)
        steps = range(first, plan.steps if self.pace.minutes is None else 2**40)
        return DataLoader(known, None, sampler=steps, num_workers=self.pace.workers, collate_fn=_as_it_is)

    def visual_tokens(self, rows: np.ndarray) -> torch.Tensor:
        pixels = self.pixels[torch.from_numpy(rows).to(self.device)].permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.stack(tuple(self.model.get_image_features(pixels, return_dict=True).pooler_output))

    def vision_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(batch.labels).to(self.device)
        return self.labels.losses(self.visual_tokens(batch.rows), labels)

    def language_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rows = batch.rows
        tokens, positions, segments, targets = torch.from_numpy(batch.turns).to(self.device).unbind(1)
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
        labels = torch.from_numpy(batch.labels).to(self.device)
        loss = F.cross_entropy(logits, targets[learned]) + 0.1 * self.labels.losses(visual, labels)[0]
        return loss, (logits.argmax(-1) == targets[learned]).float().mean()

    def run(self, stage: str) -> None:
        plan = STAGES[stage]
        loss_of: Callable[..., Any] = {"vision": self.vision_loss, "language": self.language_loss}[
            stage.split(maxsplit=1)[0]
        ]
        optimizer = torch.optim.AdamW(self._groups(plan), betas=(0.9, 0.98), weight_decay=0.05)
        step = noted = self.resume(stage, optimizer)
        self.spent = sum(row["seconds"] for row in self.history if row["stage"] == stage)
        means: tuple[float, float] | None = None
        bar = tqdm(desc=stage, initial=step, total=plan.steps if self.pace.minutes is None else None, mininterval=5)
        self.started = time.perf_counter()
        for batch in self.batches(stage, step):
            done = self.pace.done(plan, step, self.spent + time.perf_counter() - self.started)
            if done >= 1:
                break
            warm = min(1.0, (step + 1) / 200)
            decay = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warm * decay
            with torch.autocast(self.device.type, torch.bfloat16):
                loss, right = loss_of(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters(), 1.0)
            optimizer.step()
            # Waits for the device, so that the clock is right.
            found = loss.item(), right.item()
            means = found if means is None else (0.98 * means[0] + 0.02 * found[0], 0.98 * means[1] + 0.02 * found[1])
            step += 1
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{means[0]:.3f}", right=f"{means[1]:.3f}")
            if step % CHECKPOINT_EVERY == 0:
                noted = self.note(stage, step, means, optimizer)
        bar.close()
        if means and step > noted:
            self.note(stage, step, means, optimizer)

    def note(self, stage: str, step: int, means: tuple[float, float], optimizer: torch.optim.Optimizer) -> int:
        """Write history and checkpoint; returns the step."""
        now = time.perf_counter()
        seconds, self.started = now - self.started, now
        self.spent += seconds
        self.history.append({"stage": stage, "step": step, "loss": means[0], "right": means[1], "seconds": seconds})
        self.save(stage, step, optimizer)
        return step

    def _groups(self, plan: Stage) -> list[dict[str, Any]]:
        vision = list(self.model.model.vision_tower.parameters())
        known = {id(parameter) for parameter in vision}
        rest = [parameter for parameter in self._parameters() if id(parameter) not in known]
        factor = self.pace.rate
        return [
            {"params": vision, "peak": factor * plan.vision_rate},
            {"params": rest, "peak": factor * plan.rate},
        ]

    @property
    def _parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "labels": self.labels}

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.labels.parameters()]

    @property
    def _marks(self) -> bool:
        """Whether any scene carries one."""
        return bool((self.corpus.marked >= 0).any())

    def save(self, stage: str, step: int, optimizer: torch.optim.Optimizer) -> None:
        metadata = {"stage": stage, "step": str(step), "history": json.dumps(self.history), "marks": str(self._marks)}
        save_checkpoint(self.out / "checkpoint.safetensors", self._parts, optimizer, metadata)

    def resume(self, stage: str, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint, if there is one; returns the step of `stage` to go on from.

        Raises:
            SystemExit: for one of scenes with marks where these have none, or the other way round.
        """
        found = load_checkpoint(self.out / "checkpoint.safetensors", self._parts, self.device)
        if found is None:
            return 0
        metadata, state = found
        # Those of before are all of scenes with marks.
        if metadata.get("marks", str(True)) != str(self._marks):
            given = "no marks" if self._marks else "marks"
            raise SystemExit(f"{self.out} has a checkpoint of scenes with {given}. Give these another folder with --out.")
        self.history = json.loads(metadata["history"])
        order = list(STAGES)
        if order.index(metadata["stage"]) > order.index(stage):
            return STAGES[stage].steps
        if metadata["stage"] != stage:
            return 0
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["step"])

    def export(self, folder: Path) -> None:
        """Write model (bfloat16), processor and generation config to `folder`, for plain `from_pretrained`, and history."""
        model = build_model()
        model.load_state_dict(self.model.state_dict())
        model.generation_config.update(do_sample=False, max_new_tokens=16)
        model.to(torch.bfloat16).save_pretrained(folder)
        build_processor().save_pretrained(folder)
        write_text(folder.parent / "history.json", json.dumps(self.history, indent=1))


def _as_it_is(batch: Any) -> Any:
    return batch


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
    parser.add_argument("--no-marks", action="store_true", help="the same scenes, with no mark drawn into any")
    parser.add_argument("--minutes", type=float, help="for all stages together, in place of their numbers of steps")
    parser.add_argument("--images-times", type=int, default=1, help="factor on the images of a step")
    parser.add_argument("--rate-times", type=float, default=1.0, help="factor on the peak rates")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes, and on a GPU make batches")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.scenes < (most := options.images_times * max(plan.images for plan in STAGES.values())):
        parser.error(f"A step takes up to {most} scenes; got {options.scenes} in all.")
    device = torch.device(options.device)
    corpus = load_corpus(options.out, options.scenes, SEED, workers=options.workers, marks=not options.no_marks)
    ahead = 0 if device.type == "cpu" else options.workers
    trainer = Trainer(options.out, corpus, device, Pace(options.minutes, options.images_times, options.rate_times, ahead))
    for stage in STAGES:
        trainer.run(stage)
        # What is reached is there, should a machine that is lent go before the end.
        trainer.export(options.out / "model")


if __name__ == "__main__":
    main()
