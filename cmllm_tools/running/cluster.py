"""A run over many GPUs or machines with Ray: a worker to each holds the model, examples are handed out, records come home.

A worker that dies, or a node with it, loses no record: its example is given to another, and a new worker takes its place.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from ..data.dataset import Dataset
from ..errors import ClusterError
from ..loading import load
from ..strict import number, whole_number_or_none
from .task import Key, Left, R, T, Task, Work, told

# Examples that a worker has at once: the next one waits there while records come home.
AHEAD = 2
# How often an example may end its worker before it is recorded as failed.
DEATHS = 3
# Times that a cluster of this machine is started: on a busy one Ray waits too little for processes of its own.
STARTS = 4


@dataclass(frozen=True)
class Workers:
    """Processes of a Ray cluster that load a model each, in the place of a model: a run over examples is spread over them.

    `cm.evaluate`, `cm.analysis.sweep_windows` and `cm.analysis.rank_heads` take them; the records are those of one model,
    in the order in which they came.

    Args:
        loading: arguments of `load`, as `{"model": ID, "dtype": "bfloat16"}`; a model that is larger than one GPU takes
            several (`gpus_per_worker=2`) with `device_map="auto"`.
        address: of the cluster, as "auto" on one of its machines; one on this machine is started when None.
        workers: how many; as many as there are GPUs (or, without any, cores) for when None.
        gpus_per_worker: GPUs of each, 1 where the cluster has any when None; 0 for cores.

    Raises:
        SettingsError: for numbers that make no sense.

    Examples:
        >>> four = cm.evaluation.Workers({"model": "some/model"}, workers=4)
        >>> sweep = cm.analysis.sweep_windows(four, dataset, path="sweep.jsonl")  # doctest: +SKIP
    """

    loading: Mapping[str, Any] | None = None
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        whole_number_or_none(self.workers, "workers", 1)
        if self.gpus_per_worker is not None:
            number(self.gpus_per_worker, "gpus_per_worker", 0)

    @contextmanager
    def team(self, task: Task[R, T], dataset: Dataset, strict: bool) -> "Iterator[Team[R, T]]":
        """The workers, while they are there.

        Raises:
            ClusterError: when Ray is not installed, or no cluster is found.
        """
        try:
            import ray
        except ImportError as error:
            raise ClusterError("To spread a run, Ray is needed: pip install 'cmllm_tools[cluster]'.") from error
        job = Job(dict(self.loading or {}), dataset, task, strict)
        with connected(ray, self.address):
            there = ray.cluster_resources()
            gpus = float("GPU" in there) if self.gpus_per_worker is None else self.gpus_per_worker
            room = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 1))
            yield Team(ray, job, self.workers or max(room, 1), gpus)


@dataclass(frozen=True)
class Job(Generic[R, T]):
    """What each worker is made of."""

    loading: Mapping[str, Any]
    dataset: Dataset
    task: Task[R, T]
    strict: bool


class Worker(Generic[R, T]):
    """Holds the model in a process of its own."""

    def __init__(self, job: Job[R, T]):
        self.job, self.mllm = job, load(**job.loading)
        self.work: Work[R, T] | None = None

    def shared(self) -> Any:
        """What all records have in common."""
        self.work = self.work or self.job.task.start(self.mllm)
        return self.work.shared

    def records(self, at: int, keys: Sequence[Key]) -> list[bytes]:
        """The records of one example, as lines."""
        self.work = self.work or self.job.task.start(self.mllm)
        return [each.line() for each in self.work.records(self.job.dataset, {at: keys}, self.job.strict)]


class Team(Generic[R, T]):
    """The workers, and who has which example."""

    def __init__(self, ray: Any, job: Job[R, T], count: int, gpus: float):
        self.ray, self.job = ray, job
        self.sent = ray.put(job)
        # A worker that dies is replaced by a new one, so that what it had is known to be given back.
        self.make = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=0).remote
        self.workers = [self.make(self.sent) for _ in range(count)]
        self.common: Any = None

    def shared(self) -> Any:
        """What the workers' records have in common.

        Raises:
            ClusterError: when no worker can be started.
            CmllmError: for a task that does not fit the model.
        """
        faults = self.ray.exceptions
        try:
            self.common = self.ray.get(self.workers[0].shared.remote())
        except faults.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except faults.RayError as error:
            raise ClusterError(f"Workers must be able to load the model; the first one cannot: {error}") from error
        return self.common

    def records(self, left: Left) -> Iterator[R]:
        """The records of what is left.

        Raises:
            CmllmError: what an example failed with, where the job is strict.
        """
        queue, deaths = deque(left.items()), Counter[int]()
        running: dict[Any, tuple[int, int, Sequence[Key]]] = {}
        slots = deque(list(range(len(self.workers))) * AHEAD)
        while queue or running:
            while queue and slots:
                slot, (at, keys) = slots.popleft(), queue.popleft()
                running[self.workers[slot].records.remote(at, keys)] = (slot, at, keys)
            (ready,), _ = self.ray.wait(list(running), num_returns=1)
            slot, at, keys = running.pop(ready)
            slots.append(slot)
            try:
                lines = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except self.ray.exceptions.RayError as error:
                yield from self._lost(slot, at, keys, error, running, queue, deaths, slots)
            else:
                yield from (self.job.task.of_line(line, self.common) for line in lines)

    def _lost(
        self,
        slot: int,
        at: int,
        keys: Sequence[Key],
        error: Exception,
        running: dict[Any, tuple[int, int, Sequence[Key]]],
        queue: deque[tuple[int, Sequence[Key]]],
        deaths: Counter[int],
        slots: deque[int],
    ) -> Iterator[R]:
        """A worker has died: what it had goes to others, and a new one takes its place."""
        for ref in [ref for ref, (owner, _, _) in running.items() if owner == slot]:
            _, waiting, of_it = running.pop(ref)
            queue.appendleft((waiting, of_it))
            slots.append(slot)
        self.workers[slot] = self.make(self.sent)
        deaths[at] += 1
        if deaths[at] < DEATHS:
            queue.append((at, keys))
            return
        row = self.job.dataset.rows[at]
        for key in keys:
            reason = {"kind": told(error)["kind"], "message": f"its worker died {DEATHS} times: {error}"}
            yield self.job.task.failed(self.common, row, key, reason)


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """A cluster, which is left as it was found: one that is started here ends here."""
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    own = {} if address else {"include_dashboard": False}
    for again in reversed(range(1 if address else STARTS)):
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
            return
        except Exception as error:
            # Ray has no class of its own for what keeps it from starting.
            ray.shutdown()
            if not again:
                where = (
                    f"be reached at its address; {address!r} is none" if address else "start on this machine; it does not"
                )
                raise ClusterError(f"A cluster must {where}: {error}") from error
