"""What something takes: seconds, and the most memory that is in use meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

# Seconds between two looks at a process's memory: half of it costs as much as all else that a run keeps of an answer.
EVERY = 0.02


@dataclass
class Cost:
    """Filled in when `measured` ends.

    Args:
        seconds: of wall time.
        peak_memory: bytes above what was in use before: torch's allocations on a CUDA device, else the process's resident
            memory, looked at every 20 ms and at the end.
    """

    seconds: float = 0.0
    peak_memory: int = 0


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, as it goes on by itself while the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure what is done while open, also where it ends in an error."""
    cost, started = Cost(), time.perf_counter()
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            try:
                yield cost
            finally:
                cost.peak_memory = torch.cuda.max_memory_allocated(device) - before
        else:
            with _resident(cost):
                yield cost
    finally:
        cost.seconds = time.perf_counter() - started


@contextmanager
def _resident(cost: Cost) -> Iterator[None]:
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        ended = False
        while not ended:
            ended = over.wait(EVERY)
            cost.peak_memory = max(cost.peak_memory, process.memory_info().rss - before)

    watcher = threading.Thread(target=look, daemon=True, name="cmllm-memory")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
