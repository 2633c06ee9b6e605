"""docs/security.md says of the frontend's jar and of its configuration what is so."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from manymodels.frontend import configuration
from manymodels.frontend.java import Java, find_jar
from manymodels.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
CVE = re.compile(r"CVE-\d{4}-\d{4,}")


@pytest.fixture(scope="module")
def in_jar() -> Iterator[dict[str, str]]:
    """Versions by coordinates, as the bill of materials has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "container"))
        found = importlib.import_module("sbom_java").java_libraries(find_jar())
        yield {f"{library.group}:{library.artifact}": library.version for library in found}


def section(heading: str) -> str:
    """Return a section's text, without those below it."""
    return PAGE.split(f"\n{heading}\n")[1].split("\n#")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_jars_libraries_have_the_versions_of_the_table(in_jar):
    netty = {name: version for name, version in in_jar.items() if name.startswith("io.netty:")}
    expected = {name: version for name, version in in_jar.items() if name not in netty}
    (version,) = set(netty.values())
    expected[f"`io.netty:netty-*` ({len(netty)} modules)"] = version

    table = {row[0]: row[1] for row in rows(section("## The jar"))[1:]}
    assert {
        name.strip("`") if "*" not in name else name: v for name, v in table.items()
    } == expected


def test_the_page_names_the_frontends_release():
    installed = importlib.metadata.version("multi-model-server")
    assert f"multi-model-server {installed}, the newest release" in PAGE


def test_each_vulnerability_is_judged_once():
    judged = [
        number
        for heading in ("### What applies", "### What does not")
        for row in rows(section(heading))[1:]
        for number in CVE.findall(row[0])
    ]
    assert len(judged) > 50
    assert [number for number, times in Counter(judged).items() if times > 1] == []
    assert set(CVE.findall(PAGE)) >= set(judged)


def test_what_applies_is_fixed_in_a_later_netty_than_the_jars(in_jar):
    """A row whose fix the jar has by now is out of date."""
    installed = int(in_jar["io.netty:netty-codec-http"].split(".")[2])
    fixed = [row[2] for row in rows(section("### What applies"))[1:]]
    assert all(int(version.split(".")[2]) > installed for version in fixed)


@pytest.fixture
def settings() -> ServeSettings:
    return ServeSettings.from_environment({"SAGEMAKER_MULTI_MODEL": "true"})


def test_the_frontend_logs_to_the_console_by_a_pattern_and_nowhere_else(settings, tmp_path):
    configuration.write_files(settings, tmp_path)
    logging = ElementTree.parse(tmp_path / "log4j2.xml").getroot()
    (appenders,) = logging.iter("Appenders")
    assert {appender.tag for appender in appenders} == {"Console"}
    assert {layout.tag for appender in appenders for layout in appender} == {"PatternLayout"}
    assert "${" not in (tmp_path / "log4j2.xml").read_text()


def test_the_frontend_has_its_bounds_and_no_jmx_tls_or_plugins(settings, tmp_path):
    resources = configuration.Resources(memory_bytes=8 << 30, processors=2)
    java = Java(Path("/usr/bin/java"), 17)
    line = configuration.command(settings, resources, java, Path("/m.jar"), tmp_path)
    assert {option.partition("=")[0] for option in line} >= {
        "-XX:MaxDirectMemorySize",
        "-Dlog4j2.formatMsgNoLookups",
        "-Dlog4j.configurationFile",
        "-Dhttp.proxyHost",
        "-Dhttps.proxyHost",
    }
    assert f"-Xmx{272 << 20}" in line
    assert not [option for option in line if "jmxremote" in option or "agentlib" in option]
    configuration.write_files(settings, tmp_path)
    properties = (tmp_path / "config.properties").read_text()
    assert not re.search(
        r"(?m)^(keystore|private_key|certificate|cors|plugins|.*=https)", properties
    )
