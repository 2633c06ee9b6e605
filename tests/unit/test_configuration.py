"""The frontend's command line and files, read back as Java reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.frontend import configuration
from manymodels.frontend.configuration import Resources
from manymodels.frontend.java import Java
from manymodels.settings import HIGHEST_PORT, MIB, LogSettings, ServeSettings

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""

JAVA = Java(Path("/jre/bin/java"), 17)
JAR = Path("/mms/model-server.jar")
RESOURCES = Resources(4096 * MIB, 2)
DIRECTORY = Path("/tmp/manymodels-x")


def command(settings: ServeSettings, resources: Resources = RESOURCES) -> list[str]:
    return configuration.command(settings, resources, JAVA, JAR, DIRECTORY)


def jvm_options(settings: ServeSettings, resources: Resources = RESOURCES) -> list[str]:
    words = command(settings, resources)
    return words[1 : words.index("-cp")]


def bytes_of(option: str, options: list[str]) -> int:
    (value,) = [word.removeprefix(option) for word in options if word.startswith(option)]
    return int(value)


def java_properties(raw: bytes) -> dict[str, str]:
    """Read properties as java.util.Properties.load(InputStream) does: Latin-1, escapes."""
    text = raw.decode("latin-1")
    logical = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:\r\n|\r|\n)[ \t\f]*", r"\1", text)
    found = {}
    for line in re.split(r"[\r\n]+", logical):
        line = line.lstrip(" \t\f")
        if not line or line[0] in "#!":
            continue
        key, value = re.fullmatch(
            r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", line, re.DOTALL
        ).groups()
        found[unescape(key)] = unescape(value)
    return found


def unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(match[2], match[2])

    units = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", one, text, flags=re.DOTALL)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def properties(settings: ServeSettings, directory: Path) -> dict[str, str]:
    configuration.write_files(settings, directory)
    return java_properties((directory / "config.properties").read_bytes())


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def loggers(settings: ServeSettings, directory: Path) -> dict[str, str]:
    configuration.write_files(settings, directory)
    root = ElementTree.parse(directory / "log4j2.xml").getroot()
    levels = {logger.get("name"): logger.get("level") for logger in root.iter("Logger")}
    return {**levels, "": next(root.iter("Root")).get("level")}


sizes = st.integers(2 * MIB, 1 << 40)


@steady
@given(st.builds(Resources, st.integers(1, 1 << 45), st.integers(1, 512)), st.integers(1, 1 << 30))
def test_the_heap_has_room_for_payloads_and_is_at_most_a_quarter_of_the_memory(
    resources, request_bytes
):
    heap = configuration.heap_bytes(ServeSettings(request_bytes=request_bytes), resources)
    least, most = 64 * MIB + 8 * request_bytes, 128 * MIB + 24 * request_bytes
    assert least <= heap <= most
    assert heap <= max(least, resources.memory_bytes // 4)


@steady
@given(st.builds(Resources, st.integers(1, 1 << 45), st.integers(1, 512)), sizes, sizes)
def test_sizes_that_were_asked_for_are_taken_whatever_the_container_has(resources, heap, direct):
    settings = ServeSettings(heap_bytes=heap, direct_memory_bytes=direct)
    options = jvm_options(settings, resources)
    assert bytes_of("-Xmx", options) == heap
    assert bytes_of("-XX:MaxDirectMemorySize=", options) == direct


@steady
@given(st.builds(Resources, st.integers(1, 1 << 45), st.integers(1, 512)), sizes)
def test_the_jvm_starts_with_no_more_heap_than_it_may_have_and_sees_the_processors(resources, heap):
    for settings in (ServeSettings(), ServeSettings(heap_bytes=heap)):
        options = jvm_options(settings, resources)
        assert bytes_of("-Xms", options) <= bytes_of("-Xmx", options)
        assert bytes_of("-XX:MaxDirectMemorySize=", options) >= 64 * MIB
        assert bytes_of("-XX:ActiveProcessorCount=", options) == resources.processors


def test_the_users_options_come_after_ours_so_that_they_win():
    vmargs = ("-Xmx1g", "-XX:ActiveProcessorCount=7", "-Dhttp.proxyHost=proxy")
    options = jvm_options(ServeSettings(vmargs=vmargs))
    assert tuple(options[-3:]) == vmargs
    assert options.index("-Dhttp.proxyHost=127.0.0.1") < options.index("-Dhttp.proxyHost=proxy")


def test_the_command_names_java_jar_main_class_and_our_files():
    words = command(ServeSettings(multi_model=True))
    assert words[0] == "/jre/bin/java"
    after = words[words.index("-cp") :]
    assert after == [
        *("-cp", str(JAR), "com.amazonaws.ml.mms.ModelServer"),
        *("--python", str(configuration.LAUNCHER_PYTHON)),
        *("-f", f"{DIRECTORY}/config.properties"),
        *("-s", "/"),
    ]
    options = jvm_options(ServeSettings())
    assert f"-Djava.io.tmpdir={DIRECTORY}" in options
    assert f"-Dlog4j.configurationFile=file://{DIRECTORY}/log4j2.xml" in options


def test_a_single_model_is_named_on_the_command_line_and_many_are_not():
    one = command(ServeSettings(model_dir=Path("/opt/ml/model")))
    assert one[-2:] == ["-m", "model=/opt/ml/model"]
    assert "-m" not in command(ServeSettings(multi_model=True))


def test_archives_by_url_go_to_a_proxy_that_is_nowhere_unless_they_are_allowed():
    refused = jvm_options(ServeSettings())
    for scheme in ("http", "https"):
        assert f"-D{scheme}.proxyHost=127.0.0.1" in refused
        assert f"-D{scheme}.proxyPort=1" in refused
    # By default Java asks no proxy for localhost.
    assert "-Dhttp.nonProxyHosts=" in refused
    allowed = jvm_options(ServeSettings(allow_url_archives=True))
    assert not [option for option in allowed if "proxy" in option.lower()]


@steady
@given(
    st.builds(
        ServeSettings,
        port=st.integers(1, HIGHEST_PORT),
        handler=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
        workers_per_model=st.integers(1, 1024),
        response_timeout_seconds=st.integers(1, 2**31 - 1),
        job_queue_size=st.integers(1, 10**6),
        request_bytes=st.integers(1, 2**30),
    )
)
def test_java_reads_the_settings_from_the_properties_as_they_were(directory, settings):
    assert properties(settings, directory) == {
        "inference_address": f"http://0.0.0.0:{settings.port}",
        "management_address": f"http://0.0.0.0:{settings.port}",
        "default_service_handler": settings.handler,
        "default_workers_per_model": str(settings.workers_per_model),
        "default_response_timeout_seconds": str(settings.response_timeout_seconds),
        "job_queue_size": str(settings.job_queue_size),
        "max_request_size": str(settings.request_bytes),
        "max_response_size": str(settings.response_bytes),
        "decode_input_request": "false",
        "metric_time_interval": "2000000000",
        "number_of_gpu": "0",
    }


@pytest.mark.parametrize(
    "handler",
    ["modèle.py:handle", "模型.py:handle", "😀.py:handle", "h.py\nload_models=ALL", "a\udcff.py"],
)
def test_a_handler_of_any_characters_reaches_java_as_it_was(directory, handler):
    found = properties(ServeSettings(handler=handler), directory)
    assert found["default_service_handler"] == handler
    assert "load_models" not in found


@pytest.mark.parametrize("level", [0, 10, 20, 30, 50])
@pytest.mark.parametrize("access", [False, True])
@pytest.mark.parametrize("metrics", [False, True])
def test_the_logging_is_well_formed_and_says_what_was_asked_for(directory, level, access, metrics):
    settings = ServeSettings(log=LogSettings(level, False, access, metrics))
    levels = loggers(settings, directory)
    assert levels["ACCESS_LOG"] == ("info" if access else "off")
    assert levels["MODEL_METRICS"] == ("info" if metrics else "off")
    assert levels[""] == levels["com.amazonaws.ml.mms"] == ("debug" if level <= 10 else "warn")


def test_pings_are_filtered_from_the_access_log(directory):
    configuration.write_files(ServeSettings(log=LogSettings(access=True)), directory)
    root = ElementTree.parse(directory / "log4j2.xml").getroot()
    (ping,) = root.iterfind(".//Logger[@name='ACCESS_LOG']/RegexFilter")
    assert ping.get("onMatch") == "DENY"
    assert re.fullmatch(ping.get("regex"), '/127.0.0.1:4242 "GET /ping HTTP/1.1" 200 0')
    assert not re.fullmatch(ping.get("regex"), '/127.0.0.1:4242 "POST /invocations HTTP/1.1" 200 9')


def test_a_line_of_the_frontend_begins_with_its_level(directory):
    configuration.write_files(ServeSettings(), directory)
    root = ElementTree.parse(directory / "log4j2.xml").getroot()
    patterns = [layout.get("pattern") for layout in root.iter("PatternLayout")]
    assert patterns
    assert all(pattern.startswith("%p ") for pattern in patterns)


def test_the_interpreter_for_launchers_runs_this_python_isolated_and_without_site():
    code = "import sys; print(sys.executable, sys.flags.isolated, sys.flags.no_site, sys.argv[1:])"
    said = subprocess.run(
        [configuration.LAUNCHER_PYTHON, "-c", code, "a b", "$c"],
        env={"MANYMODELS_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [sys.executable, "1", "1", "['a", "b',", "'$c']"]


@pytest.mark.parametrize("runtime", ["python2", "python3"])
def test_whichever_runtime_a_model_asks_for_it_is_that_interpreter_and_has_the_servers_path(
    tmp_path, runtime
):
    configuration.link_launchers(tmp_path / "bin")
    code = "import os, sys; print(sys.executable, sys.flags.isolated, os.environ['PATH'])"
    said = subprocess.run(
        [tmp_path / "bin" / runtime, "-c", code],
        env={
            "MANYMODELS_PYTHON": sys.executable,
            "MANYMODELS_PATH": "/usr/bin:/bin",
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [sys.executable, "1", "/usr/bin:/bin"]
