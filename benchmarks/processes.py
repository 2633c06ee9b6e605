"""The processes of a stack: found by a mark in their environment, weighed, and ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import psutil

MARK = "BENCHMARK_STACK"
_PASSING = "metric_collector.py"
"""The frontend runs this once a minute: its memory is nobody's growth."""


@dataclass(frozen=True)
class Memory:
    """Bytes: USS of the JVM, USS of all other processes, PSS of all."""

    jvm: int
    backend: int
    proportional: int
    processes: int


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that carry the mark, and their descendants, reparented ones too."""
    found = {process for process in psutil.process_iter() if _carries(process, mark)}
    for process in list(found):
        with contextlib.suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return [process for process in found if _alive(process)]


def weigh(processes: list[psutil.Process]) -> Memory:
    """Add up the private memory of processes; one that ends meanwhile weighs nothing."""
    jvm = backend = proportional = count = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(argument.endswith(_PASSING) for argument in process.cmdline()):
                continue
            full = process.memory_full_info()
            proportional += full.pss
            count += 1
            if process.name() == "java":
                jvm += full.uss
            else:
                backend += full.uss
    return Memory(jvm, backend, proportional, count)


def end_all(find: Callable[[], list[psutil.Process]], patience: float) -> int:
    """Kill what is left of a stack, until nothing is; return how many it took."""
    killed = 0
    for _ in range(10):
        left = find()
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed += 1
        psutil.wait_procs(left, patience)
    return killed


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(MARK) == mark)
    except (psutil.Error, OSError):
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
