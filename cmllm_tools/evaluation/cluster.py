"""A run over many GPUs or machines with Ray: a worker to each holds the model, examples are handed out, records come home.

A worker that dies, or a node with it, loses no record: its example is given to another, and a new worker takes its place.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

from ..data.dataset import Dataset, as_dataset
from ..data.example import Example
from ..errors import ClusterError
from ..loading import load
from ..referring.method import Method
from ..strict import flag, number, whole_number, whole_number_or_none
from .kept import Plan, failed
from .records import Record
from .runner import MAX_NEW_TOKENS, Runner, as_methods
from .scorers import Scorer, as_scorer
from .summary import Evaluation

# Examples that a worker has at once: the next one waits there while records come home.
AHEAD = 2
# How often an example may end its worker before it is recorded as failed.
DEATHS = 3
# Times that a cluster of this machine is started: on a busy one Ray waits too little for processes of its own.
STARTS = 4


@dataclass(frozen=True)
class _Job:
    """What each worker is made of."""

    loading: Mapping[str, Any]
    dataset: Dataset
    methods: Mapping[str, Method]
    scorer: Scorer
    options: Mapping[str, Any]
    strict: bool
    effects: bool = False


class Worker:
    """Holds the model in a process of its own."""

    def __init__(self, job: _Job):
        self.job = job
        self.runner = Runner(load(**job.loading), job.methods, job.scorer, job.options, job.effects)

    def plan(self) -> tuple[str, dict[str, Any]]:
        """The model's name, and the methods' settings as they are filled in for it."""
        return self.runner.mllm.name, self.runner.settings

    def answered(self, at: int, names: list[str]) -> list[bytes]:
        """The records of one example, by some of the methods, as lines."""
        todo = [(at, name) for name in names]
        return [each.line() for each in self.runner.records(self.job.dataset, todo, self.job.strict)]


def spread(
    dataset: Dataset | Iterable[Example],
    methods: Mapping[str, Method] | Iterable[Method] | None = None,
    *,
    loading: Mapping[str, Any] | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    path: str | PathLike[str] | None = None,
    scorer: Scorer | str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    effects: bool = False,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """`evaluate` with workers of a Ray cluster; the records are the same, in the order in which they came.

    Args:
        dataset: from `data.read`; its files must be found at the same place on every machine.
        methods: as `evaluate` takes them.
        loading: arguments of `load`, as `{"model": ID, "dtype": "bfloat16"}`; a model that is larger than one GPU takes
            several (`gpus_per_worker=2`) with `device_map="auto"`.
        address: of the cluster, as "auto" on one of its machines; one on this machine is started when None.
        workers: how many; as many as there are GPUs (or, without any, cores) for when None.
        gpus_per_worker: GPUs of each, 1 where the cluster has any when None; 0 for cores.
        path: as in `evaluate`, and so are the others.

    Raises:
        ClusterError: when Ray is not installed, or no worker can be started.
        DataError, SettingsError, OutputError, CmllmError: as `evaluate`.

    Examples:
        >>> records = cm.evaluation.spread(dataset, loading={"model": "some/model"}, path="records.jsonl")  # doctest: +SKIP
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("To spread a run, Ray is needed: pip install 'cmllm_tools[cluster]'.") from error
    dataset, named = as_dataset(dataset), as_methods(methods)
    workers = whole_number_or_none(workers, "workers", 1)
    gpus = None if gpus_per_worker is None else number(gpus_per_worker, "gpus_per_worker", 0)
    whole_number(max_new_tokens, "max_new_tokens", 1)
    answering = {"max_new_tokens": max_new_tokens, **options}
    job = _Job(
        dict(loading or {}), dataset, named, as_scorer(scorer, dataset.scorer), answering, strict, flag(effects, "effects")
    )
    with connected(ray, address):
        there = ray.cluster_resources()
        gpus = gpus if gpus is not None else float("GPU" in there)
        room = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 1))
        team = _Team(ray, job, workers or max(room, 1), gpus)
        with Plan.opened(dataset, named, path, retry, progress) as plan:
            plan.check(*team.plan())
            return plan.done(team.records(plan.left))


class _Team:
    """The workers, and who has which example."""

    def __init__(self, ray: Any, job: _Job, count: int, gpus: float):
        self.ray, self.job = ray, job
        self.shared = ray.put(job)
        # A worker that dies is replaced by a new one, so that what it had is known to be given back.
        self.make = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=0).remote
        self.workers = [self.make(self.shared) for _ in range(count)]
        self.model = ""
        self.settings: dict[str, Any] = {}

    def plan(self) -> tuple[str, dict[str, Any]]:
        """What the workers have loaded.

        Raises:
            ClusterError: when none can be started.
        """
        try:
            self.model, self.settings = self.ray.get(self.workers[0].plan.remote())
        except self.ray.exceptions.RayError as error:
            raise ClusterError(f"Workers must be able to load the model; the first one cannot: {error}") from error
        return self.model, self.settings

    def records(self, left: Mapping[int, list[str]]) -> Iterator[Record]:
        """The records of what is left: names of methods to each example's number.

        Raises:
            CmllmError: what an example failed with, where the job is strict.
        """
        queue, deaths = deque(left.items()), Counter[int]()
        running: dict[Any, tuple[int, int, list[str]]] = {}
        slots = deque(list(range(len(self.workers))) * AHEAD)
        while queue or running:
            while queue and slots:
                slot, (at, names) = slots.popleft(), queue.popleft()
                running[self.workers[slot].answered.remote(at, names)] = (slot, at, names)
            (ready,), _ = self.ray.wait(list(running), num_returns=1)
            slot, at, names = running.pop(ready)
            slots.append(slot)
            try:
                lines = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except self.ray.exceptions.RayError as error:
                yield from self._lost(slot, at, names, error, running, queue, deaths, slots)
            else:
                yield from map(Record.of_line, lines)

    def _lost(
        self,
        slot: int,
        at: int,
        names: list[str],
        error: Exception,
        running: dict[Any, tuple[int, int, list[str]]],
        queue: deque[tuple[int, list[str]]],
        deaths: Counter[int],
        slots: deque[int],
    ) -> Iterator[Record]:
        """A worker has died: what it had goes to others, and a new one takes its place."""
        for ref in [ref for ref, (owner, _, _) in running.items() if owner == slot]:
            _, waiting, of_it = running.pop(ref)
            queue.appendleft((waiting, of_it))
            slots.append(slot)
        self.workers[slot] = self.make(self.shared)
        deaths[at] += 1
        if deaths[at] < DEATHS:
            queue.append((at, names))
            return
        row = self.job.dataset.rows[at]
        for name in names:
            message = f"its worker died {DEATHS} times: {error}"
            yield failed(row, name, self.settings[name], self.model, self.job.scorer.name, type(error).__name__, message)


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
