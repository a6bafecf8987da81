"""Several ways of referring side by side: what each makes the model answer, how far it moves it, and at what price."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..errors import SettingsError
from ..inputs.images import ImageSource
from ..inputs.regions import Region, Regions
from ..models.mllm import Mllm
from ..progress import progress_bar, waiting
from ..strict import flag, several, shown
from .asked import Asked
from .baseline import Baseline, Effect
from .comparison import Comparison, Row
from .defaults import UNSTEERED
from .method import Method, as_method
from .methods.attention_bias import AttentionEdit
from .methods.controlmllm import ControlMLLMPlus
from .methods.guidance import RegionGuidance
from .methods.key_steering import KeySteering
from .methods.outside import Crop, OutsideHidden
from .outcome import Outcome
from .run import refer


def usual_methods() -> dict[str, Method]:
    """One of each kind: a latent, keys, attention, decoding, pixels outside, pixels cut out."""
    ways = ControlMLLMPlus(), KeySteering(), AttentionEdit(), RegionGuidance(), OutsideHidden(), Crop()
    return {way.called(): way for way in ways}


def compare(
    mllm: Mllm,
    image: ImageSource,
    question: str,
    regions: Regions,
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    candidates: Sequence[str] = (),
    text: str | None = None,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> Comparison:
    """Refer to the same regions in several ways, and measure what each does and what it costs.

    A way that fails has its error in the table, and the others go on. An interrupt ends it with the ways that were done.

    Args:
        mllm: the model.
        image: all that `read_image` takes.
        question: the user's words; `{place}` in them becomes what a method calls the region.
        regions: one or several, in pixels of the image.
        methods: by name, or several, which are called by what they are; `usual_methods()` when None.
        candidates: answers whose log-odds are measured: none, or two or more.
        text: an unrelated one, that damage is measured on; see `Baseline`.
        max_new_tokens: upper bound on each answer's length.
        progress: show a progress bar.

    Raises:
        ImageError, PromptError, RegionError: as `refer` does.
        SettingsError: for what are no methods or candidates.

    Examples:
        >>> ways = [cm.methods.AttentionEdit(3), cm.methods.RedCircle()]
        >>> compared = cm.compare(mllm, scene.image, scene.question, box, methods=ways, candidates=two, progress=False)
        >>> [str(row.answer) for row in compared.rows]
        ['blue zero at the center', 'red cross at the right', 'red cross at the right']
    """
    shown_bar = flag(progress, "progress")
    asked = mllm, image, question, regions
    options: dict[str, Any] = {"candidates": candidates, "text": text, "max_new_tokens": max_new_tokens}
    with waiting("what the model answers unsteered", shown_bar):
        run, complete = Comparing(*asked, methods=methods, **options), True
    try:
        for _ in progress_bar(run, "ways", shown=shown_bar, unit="way"):
            pass
    except KeyboardInterrupt:
        complete = False
    return run.so_far(complete)


class Comparing:
    """A comparison way by way: whoever goes through it has the name of each way that was done; see `compare`.

    Each way looks at the image itself, as what it takes is measured from the image to the answer.

    Args:
        **options: for `Baseline`.

    Attributes:
        ways: the methods by name.
    """

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource,
        question: str,
        regions: Regions,
        *,
        methods: Mapping[str, Method] | Sequence[Method] | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ):
        self.ways = named_methods(methods)
        self._user, self._most = Asked.of(image, question), max_new_tokens
        self._regions, talk = self._user.regions(regions), self._user.conversation
        given = (self._user.image, question) if talk is None else (talk, None)
        self._asked = (*given, self._regions)
        baseline = Baseline(mllm, *given, max_new_tokens=max_new_tokens, **options)
        unsteered = baseline.unsteered(self._regions)
        self._baseline, self._outcomes = baseline, dict[str, Outcome]()
        self._rows = [_row(UNSTEERED, str(baseline.answer), unsteered, baseline.cost.seconds, baseline.cost.peak_memory)]

    def __len__(self) -> int:
        return len(self.ways)

    def __iter__(self) -> Iterator[str]:
        for name, way in self.ways.items():
            row, outcome = _tried(name, way, self._baseline, self._asked, self._most)
            self._rows.append(row)
            if outcome is not None:
                self._outcomes[name] = outcome
            yield name

    def so_far(self, complete: bool) -> Comparison:
        """What was done; `complete` is whether that is all that is wanted."""
        return Comparison(
            model=self._baseline.mllm.name,
            question=self._user.question,
            regions=self._regions,
            size=self._user.image.size,
            candidates=self._baseline.candidates,
            text=self._baseline.text,
            plain=self._baseline.plain,
            rows=tuple(self._rows),
            complete=complete,
            outcomes=dict(self._outcomes),
        )


def named_methods(methods: Any) -> dict[str, Method]:
    """Methods by name; those without are called by what they are, and numbered where several are called the same.

    Raises:
        SettingsError: for what are no methods, or none, or the name of what is unsteered.
    """
    if methods is None:
        return usual_methods()
    if isinstance(methods, Mapping):
        found = {str(name): as_method(method) for name, method in methods.items()}
    else:
        given = [as_method(each) for each in several(methods, "methods must be several, as [ControlMLLMPlus(), Crop()]")]
        found = dict(_numbered(given))
    if not found or UNSTEERED in found:
        raise SettingsError(f"methods must be one or more, none of them called {UNSTEERED!r}; got {shown(methods)}.")
    return found


def _numbered(methods: Sequence[Method]) -> Iterator[tuple[str, Method]]:
    called = [method.called() for method in methods]
    for at, (name, method) in enumerate(zip(called, methods, strict=True)):
        yield (f"{name} {called[: at + 1].count(name)}" if called.count(name) > 1 else name), method


def _tried(
    name: str, way: Method, baseline: Baseline, asked: tuple[Any, str, tuple[Region, ...]], max_new_tokens: int
) -> tuple[Row, Outcome | None]:
    try:
        outcome = refer(baseline.mllm, *asked, way, max_new_tokens=max_new_tokens, progress=False)
        if outcome.interrupted:
            raise KeyboardInterrupt
        row = _row(name, str(outcome.answer), baseline.effect(outcome), outcome.seconds, outcome.peak_memory)
        return row, outcome
    except Exception as error:
        # A method may be anyone's: its fault is shown in its place, whatever it is.
        return Row(name, error=f"{type(error).__name__}: {error}"), None


def _row(name: str, answer: str, effect: Effect, seconds: float | None, peak_memory: int | None) -> Row:
    return Row(name, answer, **asdict(effect), seconds=seconds, peak_memory=peak_memory)
