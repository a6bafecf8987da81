"""`evaluate`: examples x methods, kept line by line and gone on with, by one model or many."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

from ..data.dataset import Dataset, as_dataset
from ..data.example import Example
from ..errors import SettingsError
from ..models.mllm import Mllm
from ..referring.method import Method, as_method
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..running.cluster import Workers
from ..running.drive import run
from ..strict import flag, several, shown, whole_number
from .answers import Answers
from .scorers import Scorer, as_scorer
from .summary import Evaluation

# New tokens of an answer in the published runs.
MAX_NEW_TOKENS = 30


@dataclass(frozen=True)
class Unsteered(Method):
    """Nothing is done: the question as it is, to compare the other ways with.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.evaluation.Unsteered()).answer)
        blue zero at the center
    """

    label: ClassVar[str] = "unsteered"
    told: ClassVar[bool] = False


def evaluate(
    mllm: Mllm | Workers,
    dataset: Dataset | Iterable[Example],
    methods: Mapping[str, Method] | Iterable[Method] | None = None,
    *,
    path: str | PathLike[str] | None = None,
    scorer: Scorer | str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    effects: bool = False,
    batch: int = 1,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Answer and score every example by every method.

    With a `path`, each answer is a line of the file before the next is begun; the same call goes on after whatever ended
    it, and answers nothing twice. An example that fails is recorded with its reason, and the run goes on. An interrupt ends
    it with what there is.

    Args:
        mllm: the model, or `Workers` that load one each.
        dataset: from `data.read`, or examples.
        methods: by names of one's own, or several, named as people call them; unsteered and `ControlMLLMPlus()` when None.
        path: file of the records, JSON lines; kept nowhere when None.
        scorer: or its name; the one that the set is published with when None.
        max_new_tokens: upper bound on an answer's length.
        effects: whether it is measured too how far each method moves the right answer's log-odds against the wrong ones,
            and what it costs the language (`Baseline`); each example takes some forwards more.
        batch: how many questions are answered at once by methods that do nothing to the model: of one image, over its
            prefix, or of several; one by one where the model's family does not keep them apart. Answers are the same, but
            for rounding. The prompts of so many images are in memory.
        strict: whether an example that fails ends the run.
        retry: whether examples that are recorded as failed are tried again.
        progress: whether a bar is shown, with the time that is left.
        **options: for `Mllm.generate`.

    Raises:
        DataError: for no examples, or a file of another run.
        SettingsError: for what are no methods, or a setting that does not fit the model.
        OutputError: when the file cannot be written, or another process writes it. On a disk that becomes full the run
            goes on with a warning, and ends with this error where records could not be written until then.
        CmllmError: what an example failed with, where `strict`; an error has what is known in its attribute `evaluation`.

    Examples:
        >>> evaluation = cm.evaluate(mllm, examples, [cm.methods.AttentionEdit(3)], path="records.jsonl", progress=False)
        >>> evaluation.figures("attention-edit")["right"].count
        2
        >>> len(cm.Evaluation.load("records.jsonl").records)
        2
    """
    dataset, named = as_dataset(dataset), as_methods(methods)
    options = {"max_new_tokens": whole_number(max_new_tokens, "max_new_tokens", 1), **options}
    effects, batch = flag(effects, "effects"), whole_number(batch, "batch", 1)
    task = Answers(named, as_scorer(scorer, dataset.scorer), options, effects, batch)
    return run(task, mllm, dataset, path=path, strict=strict, retry=retry, progress=progress)


def spread(
    dataset: Dataset | Iterable[Example],
    methods: Mapping[str, Method] | Iterable[Method] | None = None,
    *,
    loading: Mapping[str, Any] | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    **options: Any,
) -> Evaluation:
    """`evaluate` with `Workers` of a Ray cluster; the records are the same, in the order in which they came.

    Args:
        dataset: from `data.read`; its files must be found at the same place on every machine.
        methods: as `evaluate` takes them.
        loading, address, workers, gpus_per_worker: of the `Workers`.
        **options: as `evaluate` takes them.

    Raises:
        ClusterError: when Ray is not installed, or no worker can be started.
        DataError, SettingsError, OutputError, CmllmError: as `evaluate`.

    Examples:
        >>> records = cm.evaluation.spread(dataset, loading={"model": "some/model"}, path="records.jsonl")  # doctest: +SKIP
    """
    return evaluate(Workers(loading, address, workers, gpus_per_worker), dataset, methods, **options)


def as_methods(methods: Any) -> dict[str, Method]:
    """Methods by their names.

    Raises:
        SettingsError: for none, or what are no methods.
    """
    if methods is None:
        methods = (Unsteered(), ControlMLLMPlus())
    needs = "Methods must be several, as [ControlMLLMPlus()], or given by name, as {'plus': ControlMLLMPlus()}"
    found: dict[str, Method] = {}
    if isinstance(methods, Mapping):
        for name, method in methods.items():
            if not isinstance(name, str) or not name.strip():
                raise SettingsError(f"A method's name must be a text with words; got {shown(name)}.")
            found[name] = as_method(method)
    else:
        for method in several(methods, needs):
            name = as_method(method).called().lower().replace(" ", "-")
            same = sum(known.partition("#")[0] == name for known in found)
            found[f"{name}#{same + 1}" if same else name] = method
    if not found:
        raise SettingsError(f"{needs}; got none.")
    return found
