"""``manymodels watchdog``: the watchdog by itself, for a root that no ``serve`` looks after."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace

from manymodels.errors import SettingsError
from manymodels.settings import StorageSettings
from manymodels.storage import words
from manymodels.storage.watchdog import Watchdog, need

VARIABLES = {
    "root": "MANYMODELS_MODEL_ROOT",
    "high": "MANYMODELS_STORAGE_HIGH",
    "low": "MANYMODELS_STORAGE_LOW",
    "budget": "MANYMODELS_STORAGE_BUDGET",
    "settle": "MANYMODELS_STORAGE_SETTLE_SECONDS",
}
"""The command's options, and the variables that they beat."""


def run(variables: Mapping[str, str], options: Mapping[str, str], once: bool, dry_run: bool) -> int:
    """Watch until SIGTERM or Ctrl-C, or look once; return the exit status.

    Args:
        variables: the environment.
        options: those of the command that were given, by their names.
        once: look once and return: 1 if the root is above its high mark afterwards, or would be,
            else 0.
        dry_run: remove nothing, as in the mode ``report``.

    Raises:
        SettingsError: a setting has no meaning, or the root is no directory.
    """
    settings = _settings(variables, options)
    if settings.mode == "off":
        print("the watchdog is off: MANYMODELS_STORAGE=off")
        return 0
    dry_run = dry_run or settings.mode == "report"
    settings = replace(settings, mode="report" if dry_run else "evict")
    logging.basicConfig(
        stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    dog = Watchdog(settings)
    if not once:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        dog.run(stop)
        return 0
    evictions = dog.step()
    found = dog.watch.usage
    if found is None:
        return 1
    freed = sum(eviction.bytes for eviction in evictions)
    did = "would remove" if dry_run else "removed"
    print(
        f"{words.printable(str(settings.root))}: "
        f"{words.size(found.used)} of {words.size(found.size)} used, {words.share(found.share)} "
        f"(high mark {settings.high}, low mark {settings.low}); "
        f"{did} {words.directories(len(evictions))}, {words.size(freed)}"
    )
    for eviction in evictions if dry_run else ():
        idle = words.duration(eviction.idle_seconds)
        print(
            f"  {words.printable(eviction.name)}: {words.size(eviction.bytes)}, unused for {idle}"
        )
    if dry_run:
        found = replace(found, used=found.used - freed)
    still = need(found, settings, above_high=True)
    if still and dry_run:
        print(f"  {words.size(still.bytes)} too much would stay: the rest is in use or arriving")
    return int(bool(still))


def _settings(variables: Mapping[str, str], options: Mapping[str, str]) -> StorageSettings:
    given = {VARIABLES[name]: value for name, value in options.items()}
    try:
        settings = StorageSettings.from_environment({**variables, **given})
        settings.check_root()
    except SettingsError as error:
        text = str(error)
        for name in options:
            text = text.replace(VARIABLES[name], f"--{name}")
        raise SettingsError(text) from None
    return settings
