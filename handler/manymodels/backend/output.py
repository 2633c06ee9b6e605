"""Where a process's output goes, and how its log lines look there."""

from __future__ import annotations

import contextlib
import logging
import sys

from manymodels.settings import LogSettings


class LeveledFormatter(logging.Formatter):
    """Begins each line of a record with the record's level, for frontend.logs to read."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n".join(f"{record.levelname} {line}" for line in lines)


def configure(settings: LogSettings, leveled: bool) -> None:
    """Log to stdout, as the stock worker does; with levels where ``serve`` reads them."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LeveledFormatter() if leveled else logging.Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=settings.level, force=True)


def flush() -> None:
    """Write out what Python still buffers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
