"""The frontend's command line, its properties and its logging, from our settings."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from manymodels.frontend.java import Java
from manymodels.settings import MIB, ServeSettings

MAIN_CLASS = "com.amazonaws.ml.mms.ModelServer"
MODEL_NAME = "model"
"""What the one model of a single-model endpoint is called, as by sagemaker-inference."""
LAUNCHER_PYTHON = Path(__file__).with_name("python")
"""What the frontend takes for Python; MANYMODELS_PYTHON is the real one."""
LAUNCHER_NAMES = ("python2", "python3")
"""What it runs, from the PATH, for a model whose manifest or load asks for that runtime."""
_NEVER_SECONDS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Resources:
    """What the container may use."""

    memory_bytes: int
    processors: int


def command(
    settings: ServeSettings, resources: Resources, java: Java, jar: Path, directory: Path
) -> list[str]:
    """Return the frontend's command line; ``directory`` holds its files and sockets."""
    arguments = [
        str(java.executable),
        *_memory_options(settings, resources),
        f"-XX:ActiveProcessorCount={resources.processors}",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={directory}",
        f"-Dlog4j.configurationFile={(directory / 'log4j2.xml').as_uri()}",
        "-Dlog4j2.formatMsgNoLookups=true",
        f"-DLOG_LOCATION={directory}",
        f"-DMETRICS_LOCATION={directory}",
        *_download_options(settings),
        *settings.vmargs,
        "-cp",
        str(jar),
        MAIN_CLASS,
        "--python",
        str(LAUNCHER_PYTHON),
        "-f",
        str(directory / "config.properties"),
        "-s",
        "/",
    ]
    if not settings.multi_model:
        arguments += ["-m", f"{MODEL_NAME}={settings.model_dir}"]
    return arguments


def write_files(settings: ServeSettings, directory: Path) -> None:
    """Write what the command line names into ``directory``."""
    (directory / "config.properties").write_text(_properties(settings))
    (directory / "log4j2.xml").write_text(_log4j(settings))


def link_launchers(directory: Path) -> None:
    """Make ``directory``, to be first on the frontend's PATH.

    A Python of the image's own would start with the model's directory on its path, and so run a
    sitecustomize.py that is there.
    """
    directory.mkdir()
    for name in LAUNCHER_NAMES:
        (directory / name).symlink_to(LAUNCHER_PYTHON)


def heap_bytes(settings: ServeSettings, resources: Resources) -> int:
    """Return the heap's limit: room for the payloads in flight, at most a quarter of all."""
    if settings.heap_bytes is not None:
        return settings.heap_bytes
    wanted = 128 * MIB + 24 * settings.request_bytes
    least = 64 * MIB + 8 * settings.request_bytes
    return max(least, min(wanted, resources.memory_bytes // 4))


def _memory_options(settings: ServeSettings, resources: Resources) -> list[str]:
    heap = heap_bytes(settings, resources)
    direct = settings.direct_memory_bytes or max(64 * MIB, heap // 2)
    return [
        f"-Xms{min(32 * MIB, heap)}",
        f"-Xmx{heap}",
        f"-XX:MaxDirectMemorySize={direct}",
        "-Xss256k",
        *_collector(settings),
    ]


def _collector(settings: ServeSettings) -> list[str]:
    """The serial collector has the smallest footprint; the JVM takes only one."""
    chosen = any(re.fullmatch(r"-XX:\+Use\w+GC", option) for option in settings.vmargs)
    return [] if chosen else ["-XX:+UseSerialGC"]


def _download_options(settings: ServeSettings) -> list[str]:
    """The frontend unpacks what it downloads with no check of its paths (Zip Slip).

    It downloads by Java's own client, so a proxy that is nowhere is how it is refused.
    """
    if settings.allow_url_archives:
        return []
    schemes = ("http", "https")
    proxies = [f"-D{s}.proxyHost=127.0.0.1" for s in schemes] + [
        f"-D{s}.proxyPort=1" for s in schemes
    ]
    return [*proxies, "-Dhttp.nonProxyHosts="]


def _properties(settings: ServeSettings) -> str:
    address = f"http://0.0.0.0:{settings.port}"
    values: dict[str, object] = {
        "inference_address": address,
        "management_address": address,
        "default_service_handler": settings.handler,
        "default_workers_per_model": settings.workers_per_model,
        "default_response_timeout_seconds": settings.response_timeout_seconds,
        "job_queue_size": settings.job_queue_size,
        "max_request_size": settings.request_bytes,
        "max_response_size": settings.response_bytes,
        "decode_input_request": "false",
        "metric_time_interval": _NEVER_SECONDS,
        "number_of_gpu": 0,
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    """Write a value as java.util.Properties reads it: Latin-1, escapes by UTF-16 units."""
    units = memoryview(value.encode("utf-16-le", "surrogatepass")).cast("H")
    plain = range(0x20, 0x7F)
    return "".join(
        chr(unit) if unit in plain and unit != ord("\\") else f"\\u{unit:04x}" for unit in units
    )


def _log4j(settings: ServeSettings) -> str:
    """Warnings and errors of the frontend itself; more only where it was asked for.

    The level comes first in each line, for logs.py to read.
    """
    level = "debug" if settings.log.level <= logging.DEBUG else "warn"
    pattern = quoteattr("%p %c{1}: %m %throwable{1}%n")
    # A worker's thread has the model's name, and what went wrong is in its exceptions' innermost.
    worker_pattern = quoteattr("%p %t: %m: %rThrowable{1}%n")
    access = "info" if settings.log.access else "off"
    metrics = "info" if settings.log.metrics else "off"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT"><PatternLayout pattern={pattern}/></Console>
    <Console name="worker" target="SYSTEM_OUT"><PatternLayout pattern={worker_pattern}/></Console>
  </Appenders>
  <Loggers>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="MODEL_LOG" level="info"/>
    <Logger name="MODEL_METRICS" level="{metrics}"/>
    <Logger name="MMS_METRICS" level="off"/>
    <Logger name="ACCESS_LOG" level="{access}">
      <RegexFilter regex='.*"GET /ping .*' onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="com.amazonaws.ml.mms" level="{level}"/>
    <Logger name="com.amazonaws.ml.mms.metrics" level="off"/>
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerThread" level="{level}" additivity="false">
      <AppenderRef ref="worker"/>
    </Logger>
    <Logger name="com.amazonaws.ml.mms.wlm.WorkLoadManager" level="{level}" additivity="false">
      <AppenderRef ref="worker"/>
    </Logger>
    <Logger name="com.amazonaws.ml.mms.wlm.ModelManager" level="{level}">
      <RegexFilter regex="Model not found: .*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="com.amazonaws.ml.mms.wlm.BatchAggregator" level="{level}">
      <RegexFilter regex="Load model failed: .*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerLifeCycle" level="{level}">
      <RegexFilter regex="(attach|terminate)IOStreams.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Root level="{level}"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""
