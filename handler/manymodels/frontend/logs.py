"""The container's log: every line of every part, in one form, with its model's name.

Models, zygote and frontend each write to a pipe that ends here, so a line of a C library or of
a crash is told apart as well as one of Python's logging.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable

from manymodels.settings import LogSettings

_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}
_NOISE = (
    "WARNING: sun.reflect.Reflection.getCallerClass is not supported",
    "Model server started.",
)
"""What the JVM prints past its logging, at each start."""
_LONGEST_LINE = 32 * 1024
_READ_BYTES = 1 << 16


class Log:
    """Writes lines to stdout. A reader that is gone is no reason to stop serving."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")

    def write(self, level: int, message: str, model: str | None = None) -> None:
        """Write one line, if its level is asked for."""
        if level < self._settings.level:
            return
        seconds = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        when = f"{stamp}.{int(seconds * 1000) % 1000:03d}Z"
        name = logging.getLevelName(level)
        if self._settings.json:
            fields = {"time": when, "level": name, "model": model, "message": message}
            line = json.dumps({k: v for k, v in fields.items() if v is not None})
        else:
            line = f"{when} {name} {f'[{model}] ' if model else ''}{message}"
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError:
            pass

    def info(self, message: str) -> None:
        self.write(logging.INFO, message)

    def error(self, message: str) -> None:
        self.write(logging.ERROR, message)


class Source:
    """One pipe: its lines are of one model, or of a part of the server."""

    def __init__(
        self,
        descriptor: int,
        log: Log,
        model: str | None = None,
        reader: Callable[[str], bool] | None = None,
    ) -> None:
        """Take the pipe's end, where its lines go, whose they are, and who reads each first.

        What that returns says whether the line is for nobody else.
        """
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._log = log
        self._model = model
        self._reader = reader
        self._rest = b""
        self._continued: int | None = None
        """The level of a line too long for one, while its pieces come."""

    def pump(self) -> bool:
        """Write out the lines that have come; false at the end of the pipe."""
        data = self._read()
        if data is not None:
            self._take(data)
        return data != b""

    def close(self) -> None:
        """Write out what is left, and close the pipe."""
        while data := self._read():
            self._take(data)
        self._take(b"")
        os.close(self.descriptor)

    def _read(self) -> bytes | None:
        """Return what has come, nothing at the end of the pipe, None if there is nothing yet."""
        try:
            return os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return None

    def _take(self, data: bytes) -> None:
        """Write the lines that are whole; very long ones in pieces, an unended one at the end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._write(line)
            self._continued = None
        if self._rest and (not data or len(self._rest) >= _LONGEST_LINE):
            self._write(self._rest)
            self._rest = b""

    def _write(self, line: bytes) -> None:
        """Write a line, or what has come of one. A line of a log begins with its level."""
        for start in range(0, len(line), _LONGEST_LINE):
            text = line[start : start + _LONGEST_LINE].decode(errors="replace").rstrip()
            if self._continued is None:
                word, _, rest = text.partition(" ")
                level = _LEVELS.get(word)
                self._continued = logging.INFO if level is None else level
                text = text if level is None else rest
            if text and not text.startswith(_NOISE):
                if self._reader is not None and self._reader(text):
                    continue
                self._log.write(self._continued, text, self._model)
