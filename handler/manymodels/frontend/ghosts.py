"""Models that the frontend could not start a process for, and keeps on its list all the same.

Such a load hangs for a minute inside the frontend and is answered by 500; after that the model can
be neither used nor loaded. It happens where the model's directory goes away, or may not be
entered, between the frontend's looking at it and its starting a process there. The frontend says so
in its log, and one DELETE, once the minute is over, takes the model off its list.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

HANGS_SECONDS = 62.0
"""The frontend waits for a minute; a DELETE before that is over only makes it worse."""
_SURE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0
_NOT_STARTED = re.compile(r"W-\d+-(.{0,25}): Backend worker error: java\.io\.IOException")
"""The thread's name has no more of the model's."""


class Ghosts:
    """Reads the frontend's log for such models, and takes each off its list in time."""

    def __init__(self, port: int, say: Callable[[int, str, str], None]) -> None:
        """Take the frontend's port, and what writes a line of log: level, text, model."""
        self._port = port
        self._say = say

    def read(self, line: str) -> None:
        """Look at one line of the frontend's log."""
        if found := _NOT_STARTED.search(line):
            timer = threading.Timer(HANGS_SECONDS, self._lay, (found[1],))
            timer.daemon = True
            timer.start()

    def _lay(self, prefix: str) -> None:
        try:
            names = [name for name in self._names() if name.startswith(prefix)]
            ghosts = [name for name in names if self._without_workers(name)]
            # A load that is just under way has none for a moment, either.
            time.sleep(_SURE_SECONDS)
            for name in ghosts:
                if self._without_workers(name):
                    # It answers 500, having taken the model off its list.
                    self._delete(name)
                    text = "the frontend could not start its process; it may be loaded again"
                    self._say(logging.WARNING, text, name)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._say(logging.WARNING, f"models {prefix}... may be stuck: {error}", prefix)

    def _names(self) -> Iterator[str]:
        token = ""
        while True:
            _, page = self._ask("GET", f"/models?limit=100&next_page_token={quote(token)}")
            models = page.get("models", [])
            yield from (model["modelName"] for model in models)
            token = page.get("nextPageToken") or ""
            if not token or not models:
                return

    def _without_workers(self, name: str) -> bool:
        status, model = self._ask("GET", f"/models/{quote(name, safe='')}")
        return status == http.client.OK and model.get("workers") == []

    def _delete(self, name: str) -> int:
        return self._ask("DELETE", f"/models/{quote(name, safe='')}")[0]

    def _ask(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()
