"""Models that cannot be used, and that the frontend keeps on its list all the same.

There are two kinds. A load that is answered by 507 leaves its model there if the process that the
frontend started for it still runs, as it must (`hosting.Model` says why); one DELETE takes it
off. And a load whose process cannot be started at all, as its directory has gone or may not be
entered, hangs for a minute and is answered by 500; a DELETE takes that off when the minute is over,
and before that makes it worse. Both are told by the frontend's log.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

HANGS_SECONDS = 62.0
"""The frontend waits for a minute."""
_SURE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0
_TRIES, _TRY_SECONDS = 20, 0.002
_REMEMBERED = 1024
_LEFT = re.compile(r"W-(\d+)-.{0,25}: WorkerThread interrupted during waitFor")
_NOT_STARTED = re.compile(r"W-\d+-(.{0,25}): Backend worker error: java\.io\.IOException")
"""The thread's name has no more of the model's."""


class Ghosts:
    """Reads the frontend's log for such models, and takes each off its list in time."""

    def __init__(self, port: int, say: Callable[[int, str, str], None]) -> None:
        """Take the frontend's port, and what writes a line of log: level, text, model."""
        self._port = port
        self._say = say
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._left: OrderedDict[str, str] = OrderedDict()

    def note_refused(self, number: str, name: str) -> None:
        """A load is being answered by 507: the number of its launch, and the model."""
        _remember(self._refused, number, name)
        self._match(number)

    def _match(self, number: str) -> None:
        """Act when both are known, in whatever order they came: the model, and that it is left."""
        if number in self._refused and number in self._left:
            del self._left[number]
            name = self._refused.pop(number)
            threading.Thread(target=self._lay_refused, args=(name,), daemon=True).start()

    def read(self, line: str) -> bool:
        """Look at one line of the frontend's log; whether nobody else needs to see it."""
        if found := _LEFT.search(line):
            _remember(self._left, found[1], line)
            self._match(found[1])
            return True
        if found := _NOT_STARTED.search(line):
            timer = threading.Timer(HANGS_SECONDS, self._lay_unstarted, (found[1],))
            timer.daemon = True
            timer.start()
        return False

    def _lay_refused(self, name: str) -> None:
        """Take off what is on the list again within a moment of the line; until then it is 404."""
        for _ in range(_TRIES):
            try:
                if self._delete(name) == http.client.OK:
                    return
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._say(logging.WARNING, f"it may be stuck in the frontend: {error}", name)
                return
            time.sleep(_TRY_SECONDS)

    def _lay_unstarted(self, prefix: str) -> None:
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


def _remember(book: OrderedDict[str, str], number: str, text: str) -> None:
    book[number] = text
    while len(book) > _REMEMBERED:
        book.popitem(last=False)
