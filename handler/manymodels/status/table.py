"""A snapshot as text for a terminal: a few lines about the server, then a row a model."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from manymodels.status.snapshot import Counters, Memory, Model, Server, Snapshot, Volume
from manymodels.status.tally import Tally
from manymodels.storage import words

_HEADINGS = (
    *("MODEL", "PID", "PRIVATE", "SHARED", "REQUESTS", "ERRORS"),
    *("LAST USE", "LOAD", "DISK", "LEASE"),
)
_GAP = "  "
_SHORTEST_NAME = 12
_UNKNOWN = "-"
_NO_BREAK = "\N{NO-BREAK SPACE}"
_LABEL = len("warning  ")


def table(observed: Snapshot, now: float, width: int = 100) -> str:
    """Return the text, in lines of at most ``width`` columns, without the last newline.

    Args:
        observed: a snapshot that `observe` has completed.
        now: seconds since 1970.
        width: columns, 100 or more; names of models are cut to fit.
    """
    models = sorted(observed.models, key=lambda model: model.name)
    rows = [_row(model, now) for model in models]
    lines = [line for label, text in _head(observed, now) for line in _wrapped(label, text, width)]
    lines.append("")
    if rows:
        lines += _aligned([_HEADINGS, *rows, _total(models)], width)
    else:
        lines.append("no models")
    return "\n".join(lines)


# -- the head ----------------------------------------------------------------------------


def _head(snapshot: Snapshot, now: float) -> Iterator[tuple[str, str]]:
    yield "server", _server(snapshot.server, now)
    yield "loads", _loads(snapshot.counters)
    yield "memory", _memory(snapshot.memory)
    if snapshot.volume is None:
        yield "volume", "not watched: switched off, or the model root cannot be looked at"
        return
    yield "volume", _volume(snapshot.volume)
    if snapshot.volume.warning is not None:
        yield "warning", snapshot.volume.warning


def _server(server: Server, now: float) -> str:
    port = "" if server.port is None else f", port {server.port}"
    up = words.duration(now - server.started)
    return f"manymodels {server.version}{port}, pid {server.pid}, up {up}"


def _loads(counters: Counters) -> str:
    failed = sum(counters.failed_loads.values())
    by_status = ", ".join(
        f"{n} with {status}" for status, n in sorted(counters.failed_loads.items())
    )
    return (
        f"{counters.loads} done, {failed} failed{f' ({by_status})' if failed else ''}, "
        f"{counters.unloads} unloaded; {counters.replaced_processes} processes replaced, "
        f"{counters.kernel_kills} killed for lack of memory"
    )


def _memory(memory: Memory) -> str:
    share = memory.used / memory.limit if memory.limit else 0.0
    limit = "" if memory.pids_limit is None else f" of {memory.pids_limit}"
    pids = "" if memory.pids is None else f"; {memory.pids}{limit} processes and threads"
    return (
        f"{words.size(memory.used)} of {words.size(memory.limit)} ({words.share(share)}, "
        f"{memory.source}); {words.size(memory.floor)} stay free, "
        f"{words.size(memory.reserved)} reserved, {memory.refused_loads} loads refused{pids}"
    )


def _volume(volume: Volume) -> str:
    inodes = volume.inode_fraction
    marks = f"above {words.share(volume.high)} to {words.share(volume.low)}"
    return (
        f"{words.size(volume.used_bytes)} of {words.size(volume.size_bytes)} "
        f"({words.share(volume.used_fraction)}"
        f"{'' if inodes is None else f', inodes {words.share(inodes)}'}); "
        f"{volume.mode} {marks}; {volume.evictions} removed "
        f"({words.size(volume.evicted_bytes)}); {volume.root}"
    )


# -- the rows ----------------------------------------------------------------------------


def _row(model: Model, now: float) -> tuple[str, ...]:
    return (
        _printable(model.name),
        _pids(model),
        *_sizes(model.private_bytes, model.shared_bytes),
        str(model.tally.requests),
        str(model.tally.failures),
        _ago(model.tally.last_use, now),
        _load(model),
        *_sizes(model.directory_bytes),
        {True: "held", False: "free", None: _UNKNOWN}[model.leased],
    )


def _total(models: Sequence[Model]) -> tuple[str, ...]:
    tally = sum((model.tally for model in models), Tally())
    private = sum(model.private_bytes or 0 for model in models)
    # Models from one directory take its room once.
    disk = sum({model.path: model.directory_bytes or 0 for model in models}.values())
    leased = sum(model.leased is True for model in models)
    many = f"{len(models)} model" + ("s" if len(models) != 1 else "")
    processes = str(sum(len(model.workers) for model in models))
    # What is shared is mostly the same pages for all.
    sizes = (*_sizes(private), "", str(tally.requests), str(tally.failures), "", "")
    return (many, processes, *sizes, *_sizes(disk), str(leased))


def _pids(model: Model) -> str:
    if not model.workers:
        return _UNKNOWN
    first, further = model.workers[0].pid, len(model.workers) - 1
    return f"{first}+{further}" if further else str(first)


def _sizes(*sizes: int | None) -> tuple[str, ...]:
    return tuple(_UNKNOWN if size is None else words.size(size) for size in sizes)


def _load(model: Model) -> str:
    if model.state != "loaded":
        return _printable(model.state)
    return _UNKNOWN if model.load_ms is None else f"{model.load_ms:.0f} ms"


def _ago(moment: float | None, now: float) -> str:
    """Return a time in its largest unit: 3 s ago."""
    if moment is None:
        return "never"
    seconds = max(0.0, now - moment)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"


# -- text --------------------------------------------------------------------------------


def _wrapped(label: str, text: str, width: int) -> list[str]:
    # A number stays with its unit: lines are only broken at plain spaces.
    together = re.sub(r"(?<=\d) (?=\S)", _NO_BREAK, _printable(text))
    lines = textwrap.wrap(
        together,
        width,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _aligned(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Pad the columns: names after their text, the rest, numbers mostly, before it."""
    others = [max(map(_columns, column)) for column in list(zip(*rows, strict=True))[1:]]
    room = max(_SHORTEST_NAME, width - sum(others) - len(_GAP) * len(others))
    names = [_cut(row[0], room) for row in rows]
    longest = max(map(_columns, names))
    for name, row in zip(names, rows, strict=True):
        cells = [name + " " * (longest - _columns(name))]
        cells += [cell.rjust(size) for cell, size in zip(row[1:], others, strict=True)]
        yield _GAP.join(cells).rstrip()


def _cut(text: str, room: int) -> str:
    """Cut the middle out of what is wider than there is room."""
    if _columns(text) <= room:
        return text
    kept = room - 1
    head = _fitting(text, kept - kept // 2)
    tail = _fitting(text[::-1], kept // 2)[::-1]
    return f"{head}…{tail}"


def _fitting(text: str, room: int) -> str:
    kept = 0
    for index, character in enumerate(text):
        kept += _columns(character)
        if kept > room:
            return text[:index]
    return text


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_column, text))


def _column(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _printable(text: str) -> str:
    """Escape what a terminal would obey, break its line at, or could not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
