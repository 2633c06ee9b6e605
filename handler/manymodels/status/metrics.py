"""What a server knows of itself, for Prometheus: on a port of its own, or in a text file.

Importing this takes prometheus_client, so only who shows metrics does.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from manymodels.errors import ManyModelsError, ServeError
from manymodels.status.metric_families import families
from manymodels.status.snapshot import Snapshot

WRITE_SECONDS = 15.0
logger = logging.getLogger(__name__)


class SnapshotCollector(Collector):
    """Turns a snapshot into metrics, a new one each time it is asked."""

    def __init__(self, source: Callable[[], Snapshot]) -> None:
        """Take what returns a snapshot, completed by a `MemoryObserver` or not."""
        self._source = source
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:  # scrapes come in threads of their own
            snapshot = self._source()
        yield from families(snapshot)


def serve_metrics(
    port: int, source: Callable[[], Snapshot], address: str = "0.0.0.0"
) -> Callable[[], None]:
    """Answer GET /metrics on a port, in daemon threads; return what ends that.

    Args:
        port: a free one.
        source: returns a snapshot; is called in another thread, never twice at once. What it
            raises is answered by 500.

    Raises:
        ServeError: the port is in use, or may not be had.
    """
    try:
        server, thread = start_http_server(port, address, _registry(source))
    except OSError as error:
        raise ServeError(f"no metrics on port {port}: {error.strerror or error}") from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def write_metrics(path: Path, source: Callable[[], Snapshot]) -> None:
    """Write the metrics to a file, in one step: readers find the old ones or the new.

    Args:
        path: the file; node_exporter's textfile collector reads those that end in ``.prom``.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    write_to_textfile(str(path), _registry(source))


def keep_writing(path: Path, source: Callable[[], Snapshot]) -> None:
    """Write the metrics to a file every WRITE_SECONDS, in a daemon thread; log a failure once.

    Raises:
        ServeError: the file cannot be written at all.
    """
    try:
        _check(path)
    except OSError as error:
        raise ServeError(f"no metrics in {path}: {error.strerror or error}") from None

    def write() -> None:
        failed = False
        while True:
            try:
                write_metrics(path, source)
                failed = False
            except (OSError, ManyModelsError) as error:
                if not failed:
                    logger.warning("the metrics cannot be written to %s: %s", path, error)
                failed = True
            time.sleep(WRITE_SECONDS)

    threading.Thread(target=write, daemon=True).start()


def _check(path: Path) -> None:
    """Raise OSError if no file can be made there, or replaced."""
    with tempfile.TemporaryFile(dir=path.parent):
        pass
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _registry(source: Callable[[], Snapshot]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(source))
    return registry
