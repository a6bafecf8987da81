"""Listeners of an optimisation: progress, early stopping, answers, checkpoints."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol

import torch

from ..errors import OutputError, OutputWarning, SettingsError
from ..files import check_writable
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..progress import progress_bar
from ..strict import flag, number, shown, whole_number
from .latent_method import LatentMethod
from .trace import Step, Trace


class Run(Protocol):
    """What callbacks see of a run."""

    mllm: Mllm
    prompt: Prompt
    method: LatentMethod
    trace: Trace

    def stop(self, reason: str) -> None:
        """End the run after the current step."""

    @property
    def latent(self) -> torch.Tensor:
        """(visual token, width) of the step last yielded."""

    def answer(self) -> str:
        """The model's answer with the current latent."""


class Callback:
    """Base of all callbacks; each method may be overridden.

    Examples:
        >>> class Shares(cm.Callback):
        ...     def on_step(self, run, step):
        ...         print(step.number, f"{step.share:.0%}")
        >>> run = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=1), callbacks=[Shares()])
        0 8%
        1 11%
    """

    def on_start(self, run: Run) -> None:
        """Before the first step."""

    def on_step(self, run: Run, step: Step) -> None:
        """After each step; `step` is already in `run.trace`."""

    def on_end(self, run: Run) -> None:
        """After the last step, also when the run was interrupted or failed."""


class ProgressBar(Callback):
    """A tqdm bar, as text, over the updates, with energy, share of attention in the region, and the time that is left.

    Args:
        after: seconds before it is shown; a run that is done by then shows none.

    Raises:
        SettingsError: for an `after` below 0.

    Examples:
        >>> trace = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=1), callbacks=[cm.ProgressBar()])
        >>> trace.stopped
        'finished'
    """

    def __init__(self, after: float = 0.0):
        self.after = number(after, "after", least=0)

    def on_start(self, run: Run) -> None:
        self.bar = progress_bar(total=run.method.steps, desc="steering", unit="update", delay=self.after)

    def on_step(self, run: Run, step: Step) -> None:
        # Drawn with the update: by itself it would be drawn before its time, and in a file be a line for every step.
        self.bar.set_postfix(energy=f"{step.energy:.3f}", share=f"{step.share:.0%}", refresh=False)
        self.bar.update(step.number - self.bar.n)

    def on_end(self, run: Run) -> None:
        if hasattr(self, "bar"):
            if run.trace.whole:
                # One that stopped early has done all that it was to do.
                self.bar.total = self.bar.n
            self.bar.close()


EARLY_STOP = "early stop: energy changed enough"
ROSE = "early stop: energy rose"
LOOKED_AT = "early stop: the region is looked at enough"


def changed_enough(steps: Sequence[Step], threshold: float) -> bool:
    """Whether `|E_t - E_0| / E_0 >= threshold` at the last of the steps."""
    first, last = steps[0].energy, steps[-1].energy
    return len(steps) > 1 and abs(last - first) >= threshold * first


class EarlyStopping(Callback):
    """Stop once `|E_t - E_0| / E_0 >= threshold` (ControlMLLM, section 4.1).

    A method's own `early_stop` needs no callback; this one adds to it.

    Args:
        threshold: fraction of the first energy, above 0.
        on_rise: stop also when the energy rises from one step to the next, as the published demo does.

    Raises:
        SettingsError: for a threshold that is not above 0.

    Examples:
        >>> trace = cm.optimize(mllm, prompt, box, callbacks=[cm.EarlyStopping(0.1)])
        >>> trace.stopped
        'early stop: energy changed enough'
    """

    def __init__(self, threshold: float = 0.25, on_rise: bool = False):
        self.threshold = number(threshold, "An early stopping threshold", above=0)
        self.on_rise = flag(on_rise, "on_rise")

    def on_step(self, run: Run, step: Step) -> None:
        steps = run.trace.steps
        if changed_enough(steps, self.threshold):
            run.stop(EARLY_STOP)
        elif self.on_rise and len(steps) > 1 and step.energy > steps[-2].energy:
            run.stop(ROSE)


class Answers(Callback):
    """Decode an answer and keep it in the step: at each step, or only before and after steering.

    Args:
        at: "each" or "ends".

    Raises:
        SettingsError: for another value.

    Examples:
        >>> steered = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=2), callbacks=[cm.Answers("ends")])
        >>> [step.answer for step in steered.steps]
        ['blue zero at the center', None, 'red cross at the right']
    """

    def __init__(self, at: Literal["each", "ends"] = "each"):
        if not isinstance(at, str) or at not in ("each", "ends"):
            raise SettingsError(f"Answers are decoded at 'each' step or at the 'ends'; got {shown(at)}.")
        self.at = at

    def on_step(self, run: Run, step: Step) -> None:
        if self.at == "each" or step.number == 0:
            step.answer = run.answer()

    def on_end(self, run: Run) -> None:
        if run.trace.steps and run.trace.steps[-1].answer is None:
            run.trace.steps[-1].answer = run.answer()


class Checkpoint(Callback):
    """Save the trace after every `every` steps and at the end, so that a crash loses little.

    A file that is there already is kept until the run has ended by itself, and then replaced. Until then, and when the run
    is interrupted, killed or fails, its trace is beside that file, with `.unfinished` before the suffix. A save that fails
    (a full disk) gives a warning, and the run goes on; `optimize` returns the trace, to be saved elsewhere.

    Args:
        path: of the trace file; checked before the run.
        every: steps between two saves.

    Attributes:
        saved: the file that holds the trace now, None before the first save and after one that failed.

    Raises:
        OutputError: when the path cannot be written.
        SettingsError: for `every` below 1.

    Examples:
        >>> run = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=2), callbacks=[cm.Checkpoint("run.safetensors")])
        >>> cm.Trace.load("run.safetensors").stopped
        'finished'
    """

    def __init__(self, path: str | PathLike[str], every: int = 1):
        self.every = whole_number(every, "every", least=1)
        self.path = self.here = check_writable(path)
        self.saved: Path | None = None

    def on_start(self, run: Run) -> None:
        beside = self.path.with_name(f"{self.path.stem}.unfinished{self.path.suffix}")
        self.here, self.saved = beside if self.path.exists() else self.path, None

    def on_step(self, run: Run, step: Step) -> None:
        if (step.number + 1) % self.every == 0:
            self._save(run.trace, self.here)

    def on_end(self, run: Run) -> None:
        if not run.trace.steps:
            return
        if not run.trace.whole:
            self._save(run.trace, self.here)
        elif self._save(run.trace, self.path) and self.here != self.path:
            self.here.unlink(missing_ok=True)

    def _save(self, trace: Trace, path: Path) -> bool:
        try:
            self.saved = trace.save(path)
        except OutputError as error:
            self.saved = None
            warnings.warn(f"The checkpoint is not saved: {error}", OutputWarning, stacklevel=3)
        return self.saved is not None
