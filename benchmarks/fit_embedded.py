"""Choose the methods' settings for the embedded model: `python -m benchmarks.fit_embedded [--scenes N]`.

On scenes of a seed of their own, so that the held-out set stays unseen. All scenes are steered in one batch, with eager
attention; energies and updates are the package's own. Prints, for each setting and kind of region, the percentage of scenes
whose "A or B" answer and description name the region's object, and of descriptions that name something absent.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import torch
from tqdm.auto import tqdm

import cmllm_tools as cm
from cmllm_tools.bench.embedded import REGIONS, absent_names, chooses
from cmllm_tools.bench.heldout import DESCRIPTIONS
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.evaluation.matching import names_it
from cmllm_tools.models.undisturbed import undisturbed
from cmllm_tools.referring.energy import hard_energy, soft_energy
from training.embedded.heldout import generate

SEED = 778
# Answers of both kinds begin with the name: color and kind.
NEW_TOKENS = 2


class Batch:
    """One question about each scene, as one batch."""

    def __init__(self, mllm: cm.Mllm, examples: list):
        self.mllm, self.examples = mllm, examples
        self.prompts = [mllm.prepare(example.image, example.question) for example in tqdm(examples, "prompts", leave=False)]
        lengths = {len(prompt.tokens) for prompt in self.prompts}
        if len(lengths) != 1:
            raise SystemExit(f"Questions of one batch must have the same length; got {sorted(lengths)} tokens.")
        self.states = torch.cat([prompt.call.states for prompt in self.prompts])
        self.visual = torch.tensor(self.prompts[0].visual)
        # transformers hangs the hooks that collect attention on the layers of the first such call: on all of them.
        mllm.decoder(inputs_embeds=self.states[:1], use_cache=False, output_attentions=True)
        self.measures = {kind: torch.stack([self._measure(i, kind) for i in range(len(examples))]) for kind in REGIONS}

    def _measure(self, index: int, kind: str) -> torch.Tensor:
        region, layout = self.examples[index].region(kind), self.prompts[index].layout
        return torch.from_numpy(layout.distance(region) if region.soft else layout.inside(region))

    def steer(self, kind: str, method: cm.ControlMLLM | cm.ControlMLLMPlus) -> torch.Tensor:
        """Latents (scene, visual token, width) after the method's steps."""
        updates = method.start(torch.zeros(len(self.states), len(self.visual), self.states.shape[-1]))
        rows = list(self.prompts[0].positions(method.queries))
        first, running = None, torch.ones(len(self.states), dtype=torch.bool)
        latent = updates.latent.detach().clone()
        for _ in range(method.steps):
            trial = updates.latent.detach().clone().requires_grad_()
            energy = self._energy(trial, kind, method, rows)
            (gradient,) = torch.autograd.grad(energy.sum(), trial)
            first = energy.detach() if first is None else first
            latent = torch.where(running[:, None, None], trial.detach(), latent)
            if method.early_stop:
                running &= (energy.detach() - first).abs() / first < method.early_stop
            updates.update(gradient)
        return torch.where(running[:, None, None], updates.latent.detach(), latent)

    def _energy(self, latent: torch.Tensor, kind: str, method: cm.ControlMLLM, rows: list[int]) -> torch.Tensor:
        low, high = method.layers
        decoder = self.mllm.decoder
        every = decoder.layers
        try:
            decoder.layers = every[:high]
            output = decoder(
                inputs_embeds=self.states.index_add(1, self.visual, latent), use_cache=False, output_attentions=True
            )
        finally:
            decoder.layers = every
        values = torch.stack([a[:, :, rows][..., self.visual].mean((1, 2)) for a in output.attentions[low:high]]).mean(0)
        if kind in ("scribble", "point"):
            return soft_energy(values, self.measures[kind], method.sigma)
        return hard_energy(values, self.measures[kind])

    @torch.no_grad()
    def answers(self, latent: torch.Tensor) -> list[str]:
        """Greedy answers, without a cache: the batch is small."""
        model, tokenizer = self.mllm.model, self.mllm.processor.tokenizer
        states = self.states.index_add(1, self.visual, latent)
        said = []
        for _ in range(NEW_TOKENS):
            said.append(
                model.lm_head(self.mllm.decoder(inputs_embeds=states, use_cache=False).last_hidden_state[:, -1]).argmax(-1)
            )
            states = torch.cat([states, model.get_input_embeddings()(said[-1])[:, None]], 1)
        end = tokenizer.eos_token_id
        words = [list(itertools.takewhile(lambda token: token != end, row)) for row in torch.stack(said, 1).tolist()]
        return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in words]


def grid() -> list:
    """The settings that are tried."""
    plus = [
        cm.ControlMLLMPlus(steps=10, step_size=size, layers=(0, high), contrast=0.0)
        for size, high in itertools.product((0.1, 0.15, 0.2, 0.3), (3, 4))
    ]
    plain = [
        cm.ControlMLLM(steps=12, step_size=size, layers=(0, 4), ema=0.5, early_stop=stop, queries="last", sigma=0.4)
        for size, stop in itertools.product((500.0, 1000.0, 2000.0), (0.65, 0.8))
    ]
    return plus + plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--regions", nargs="+", choices=REGIONS, default=REGIONS)
    parser.add_argument("--model", help="folder of another checkpoint than the shipped one")
    options = parser.parse_args()
    mllm = cm.load(options.model, attn_implementation="eager", dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder, undisturbed(mllm.model, gradient=True):
        generate(Path(folder), options.scenes, SEED)
        choices, descriptions = (Batch(mllm, read_roc(folder, *file)) for file in ((), (DESCRIPTIONS,)))
        for method in tqdm(grid(), "settings"):
            cells = []
            for kind in options.regions:
                chosen = choices.answers(choices.steer(kind, method))
                told = descriptions.answers(descriptions.steer(kind, method))
                right = [chooses(answer, example) for answer, example in zip(chosen, choices.examples, strict=True)]
                named = [names_it(a, e.names[0]) for a, e in zip(told, descriptions.examples, strict=True)]
                absent = [bool(absent_names(a, e.objects)) for a, e in zip(told, descriptions.examples, strict=True)]
                figures = [100 * sum(values) / len(values) for values in (right, named, absent)]
                cells.append(f"{kind} " + " ".join(f"{figure:3.0f}" for figure in figures))
            stop = f" stop {method.early_stop}" if method.early_stop else ""
            setting = f"steps {method.steps:2d} size {method.step_size:6g} layers {method.layers}{stop:9s}"
            print(f"{type(method).__name__:15s} {setting} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
