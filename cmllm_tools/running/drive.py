"""A task run over examples: in this process with a model, or by workers that hold one each."""

from os import PathLike

from ..data.dataset import Dataset
from ..models.mllm import Mllm, require
from ..strict import flag
from .cluster import Workers
from .plan import Plan
from .task import R, T, Task


def run(
    task: Task[R, T],
    mllm: Mllm | Workers,
    dataset: Dataset,
    *,
    path: str | PathLike[str] | None = None,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
) -> T:
    """What comes of a task over a set.

    With a `path`, each record is a line of the file before the next is begun; the same call goes on after whatever ended
    it, and makes no record twice. An example that fails is recorded with its reason, and the run goes on. An interrupt ends
    it with what there is.

    Args:
        task: what is done with each example.
        mllm: the model, or workers that load one each.
        dataset: the examples.
        path: file of the records, JSON lines; kept nowhere when None.
        strict: whether an example that fails ends the run.
        retry: whether examples that are recorded as failed are tried again.
        progress: whether a bar is shown, with the time that is left.

    Raises:
        UnsupportedModelError: for what is neither a model nor workers.
        DataError: for no examples, or a file of another run.
        SettingsError: for a setting that does not fit the model.
        OutputError: when the file cannot be written, or another process writes it.
        ClusterError: when no worker can be started.
        CmllmError: what an example failed with, where `strict`. An error has what is known in an attribute, by the name of
            what the task gives.
    """
    strict, retry = flag(strict, "strict"), flag(retry, "retry")
    if isinstance(mllm, Workers):
        with mllm.team(task, dataset, strict) as team:
            shared = team.shared()
            with Plan.opened(task, dataset, shared, path, retry, progress) as plan:
                return plan.done(lambda tick: team.records(plan.left))
    require(mllm)
    work = task.start(mllm)
    with Plan.opened(task, dataset, work.shared, path, retry, progress) as plan:
        return plan.done(lambda tick: work.records(dataset, plan.left, strict, tick))
