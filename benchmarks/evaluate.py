"""What a run over a set costs beside a bare loop: `python -m benchmarks.evaluate [--json]`.

On the embedded model and its held-out scenes:

- overhead: `evaluate` with a file of records, against prepare, steer and generate in a loop; example by example in turns,
  in processor time and what is waited for the disk, as both hang less on what else the machine does than a clock;
- memory: resident memory after the last of many unsteered examples, against that after the first fifth;
- prefix: four questions about one image, in one batch over its prefix, against the same questions about four images; and
  one by one (`prefix_ratio_one_by_one`), where an embedded model's forwards of 13 tokens cost nearly what those of 80 do;
- batch: four images in one batch, against the same one by one;
- Ray (where it is installed): two workers of a thread each against one.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.evaluation import Unsteered

METHOD = cm.ControlMLLMPlus()


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bare(mllm: cm.Mllm, example: cm.data.Example) -> None:
    """What a user's own loop would do."""
    prompt = mllm.prepare(example.image, example.question)
    mllm.generate(prompt, cm.optimize(mllm, prompt, example.region, METHOD), max_new_tokens=30)


class Hooked(cm.data.Dataset):
    """A set that does something before it gives each example."""

    def __getitem__(self, number: Any) -> Any:
        example = super().__getitem__(number)
        self.before(example)
        return example


def hooked(rows: Sequence[cm.data.Row], before: Callable[[Any], None]) -> Hooked:
    like = cm.data.read(HELDOUT)
    found = Hooked(like.name, like.root, tuple(rows), like.make, like.scorer)
    object.__setattr__(found, "before", before)
    return found


@contextmanager
def working() -> Iterator[Callable[[], float]]:
    """While open, a clock of seconds that this process has worked, or waited until a file was on the disk."""
    fsync, waited = os.fsync, [0.0]

    def timed(descriptor: int) -> None:
        wall, work = time.perf_counter(), time.process_time()
        fsync(descriptor)
        waited[0] += max(0.0, time.perf_counter() - wall - (time.process_time() - work))

    os.fsync = timed
    try:
        yield lambda: time.process_time() + waited[0]
    finally:
        os.fsync = fsync


def overhead(mllm: cm.Mllm, count: int) -> float:
    """Median over examples of how much more the runner takes, as a share, all that it does counted."""
    begun, alone = [], []
    with working() as clock, tempfile.TemporaryDirectory() as folder:

        def before(example: cm.data.Example) -> None:
            begun.append(clock())
            bare(mllm, example)
            alone.append(clock() - begun[-1])

        dataset = hooked(cm.data.read(HELDOUT)[: count + 2].rows, before)
        cm.evaluate(mllm, dataset, [METHOD], path=Path(folder) / "records.jsonl", progress=False)
    # The first pays for what is set up once, and the last has no next.
    ratios = [(end - start) / of - 1 for start, end, of in zip(begun[1:], begun[2:], alone[1:], strict=False)]
    return statistics.median(ratios) - 1


def growth(mllm: cm.Mllm, count: int) -> float:
    """Growth of resident memory from the first fifth of a run to its end, as a share."""
    whole = cm.data.read(HELDOUT)
    rows = [replace(whole.rows[at % len(whole)], id=at) for at in range(count)]
    process, seen = psutil.Process(), []

    dataset = hooked(rows, lambda example: seen.append(process.memory_info().rss))
    with tempfile.TemporaryDirectory() as folder:
        cm.evaluate(mllm, dataset, [Unsteered()], path=Path(folder) / "records.jsonl", max_new_tokens=4, progress=False)
    fifth = max(1, count // 5)
    return statistics.mean(seen[-fifth:]) / statistics.mean(seen[fifth : 2 * fifth]) - 1


def prefix(mllm: cm.Mllm, repeats: int, batch: int = 4) -> float:
    """Seconds of four questions about one image, as a share of those about four one by one; both in turns."""
    return _in_turns(mllm, repeats, batch, lambda each, first: replace(each, image=first.image, region=first.region))


def batched(mllm: cm.Mllm, repeats: int) -> float:
    """Seconds of four images in one batch, as a share of those one by one."""
    return _in_turns(mllm, repeats, 4, lambda each, first: each)


def _in_turns(mllm: cm.Mllm, repeats: int, batch: int, other: Callable[[Any, Any], Any]) -> float:
    shown = list(cm.data.read(HELDOUT)[: 4 * repeats])
    ratios = []
    for at in range(0, len(shown), 4):
        four = shown[at : at + 4]
        others = [other(each, four[0]) for each in four]
        apart, together = (
            seconds(lambda some=some, batch=batch: cm.evaluate(mllm, some, [Unsteered()], batch=batch, progress=False))
            for some, batch in ((four, 1), (others, batch))
        )
        ratios.append(together / apart)
    return statistics.median(ratios)


def speedup(count: int) -> float | None:
    """How many times faster two workers answer than one, from the first record on; None without Ray."""
    try:
        import ray
    except ImportError:
        return None
    from cmllm_tools.evaluation import spread
    from cmllm_tools.running.cluster import connected

    dataset, rates = cm.data.read(HELDOUT)[:count], []
    with connected(ray, None), tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            path = Path(folder) / f"{workers}.jsonl"
            with _Watch(path) as watch:
                spread(dataset, [METHOD], workers=workers, path=path, progress=False)
            # Loading is no part of it: the records after the first tenth, when all workers are at it.
            first = count // 10
            rates.append((count - first) / (watch.times[-1] - watch.times[first - 1]))
    return rates[1] / rates[0]


class _Watch:
    """Notes when a file's lines come."""

    def __init__(self, path: Path):
        self.path, self.times, self.over = path, [], threading.Event()

    def __enter__(self) -> "_Watch":
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(0.02):
            lines = self.path.read_bytes().count(b"\n") if self.path.exists() else 0
            self.times += [time.perf_counter()] * (lines - len(self.times))


def measure(examples: int, many: int, spread_over: int) -> dict[str, Any]:
    """`{"overhead", "memory_growth", "prefix_ratio", "ray_speedup", "examples_per_second"}`, and two ratios more."""
    mllm = cm.load()
    dataset = cm.data.read(HELDOUT)[:examples]
    took = seconds(lambda: cm.evaluate(mllm, dataset, [METHOD], progress=False))
    return {
        "overhead": overhead(mllm, examples),
        "memory_growth": growth(mllm, many),
        "prefix_ratio": prefix(mllm, max(1, examples // 4)),
        "prefix_ratio_one_by_one": prefix(mllm, max(1, examples // 4), batch=1),
        "batch_ratio": batched(mllm, max(1, examples // 4)),
        "ray_speedup": speedup(spread_over) if spread_over else None,
        "examples_per_second": examples / took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--examples", type=int, default=60, metavar="N", help="steered examples")
    parser.add_argument("--many", type=int, default=2000, metavar="N", help="unsteered examples, for the memory")
    parser.add_argument("--spread", type=int, default=100, metavar="N", help="examples for Ray's workers; 0 leaves it out")
    options = parser.parse_args()
    summary = measure(options.examples, options.many, options.spread)
    print(json.dumps(summary) if options.json else "\n".join(f"{name:20s} {value}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
