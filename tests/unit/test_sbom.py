"""The image's bill of materials: what it lists, and that the same files give the same bytes."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated from CycloneDX")

CONTAINER = Path(__file__).resolve().parents[2] / "container"
STATUS = """\
Package: libssl3
Status: install ok installed
Source: openssl
Version: 3.0.11-1
Architecture: amd64
Maintainer: Nobody <nobody@example.com>
Description: encryption

Package: removed
Status: deinstall ok config-files
Version: 1.0
Architecture: amd64
Maintainer: Nobody <nobody@example.com>
Description: no longer here
"""
WHEEL_SBOM = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "components": [
        {"type": "library", "name": "Made_Up", "version": "1", "purl": "pkg:pypi/made_up@1"},
        {"type": "library", "name": "libgomp", "version": "8", "purl": "pkg:rpm/alma/libgomp@8"},
    ],
}


@pytest.fixture(scope="module")
def sbom() -> Iterator[ModuleType]:
    """The script, imported as it sees itself: with its own directory on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CONTAINER))
        yield importlib.import_module("sbom")


@pytest.fixture(scope="module")
def whole(sbom, tmp_path_factory) -> dict:
    """The bill of all that is installed here."""
    directory = tmp_path_factory.mktemp("whole")
    return written(sbom, installed(), made_database(directory), directory / "bill.json")


@pytest.fixture
def database(tmp_path) -> Path:
    return made_database(tmp_path)


def made_database(parent: Path) -> Path:
    directory = parent / "dpkg"
    (directory / "info").mkdir(parents=True)
    (directory / "updates").mkdir()
    (directory / "status").write_text(STATUS)
    return directory


@pytest.fixture
def site_packages(tmp_path) -> Path:
    """One distribution, whose wheel bundles a library and lists another."""
    root = tmp_path / "site-packages"
    info = root / "Made_Up-1.dist-info"
    files = {
        info / "METADATA": "Metadata-Version: 2.4\nName: Made_Up\nVersion: 1\n"
        "License-Expression: MIT OR Apache-2.0\n",
        info / "sboms" / "auditwheel.cdx.json": json.dumps(WHEEL_SBOM),
        root / "made_up.libs" / "libquadmath-1.so": "binary",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    record = "".join(f"{path.relative_to(root)},,\n" for path in files)
    (info / "RECORD").write_text(record)
    return root


def written(sbom: ModuleType, site_packages: Path, database: Path, output: Path) -> dict:
    arguments = ["--site-packages", str(site_packages), "--admindir", str(database)]
    assert sbom.main([*arguments, "--output", str(output)]) == 0
    return json.loads(output.read_text())


def by_reference(bill: dict) -> dict[str, dict]:
    return {component["bom-ref"]: component for component in bill["components"]}


def children(bill: dict, reference: str) -> set[str]:
    (entry,) = [entry for entry in bill["dependencies"] if entry["ref"] == reference]
    return set(entry.get("dependsOn", ()))


def installed() -> Path:
    return Path(str(importlib.metadata.distribution("multi-model-server").locate_file("")))


def test_everything_that_is_installed_here_makes_a_valid_bill(whole):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(whole)) is None
    listed = set(by_reference(whole))
    for name in ("numpy", "scikit-learn", "multi-model-server"):
        assert f"pkg:pypi/{name}@{importlib.metadata.version(name)}" in listed
    # Each package that Maven, PyPI or Debian knows has its purl as its reference.
    assert all(c.get("purl", ref) == ref for ref, c in by_reference(whole).items())


def test_the_same_files_give_the_same_bytes_and_others_another_serial_number(
    sbom, site_packages, database, tmp_path
):
    first = written(sbom, site_packages, database, tmp_path / "a.json")
    written(sbom, site_packages, database, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "timestamp" not in first["metadata"]

    (database / "status").write_text(STATUS.replace("3.0.11-1", "3.0.11-2"))
    assert (
        written(sbom, site_packages, database, tmp_path / "c.json")["serialNumber"]
        != (first["serialNumber"])
    )


def test_source_date_epoch_is_the_bills_time(sbom, site_packages, database, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    bill = written(sbom, site_packages, database, tmp_path / "bill.json")
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="not a Debian")
def test_installed_debian_packages_are_listed_with_their_source(
    sbom, site_packages, database, tmp_path
):
    bill = written(sbom, site_packages, database, tmp_path / "bill.json")
    (package,) = [ref for ref in by_reference(bill) if ref.startswith("pkg:deb/")]
    assert package.startswith("pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=")
    assert package.endswith("&upstream=openssl")
    assert package in children(bill, "image")
    assert [c for c in bill["components"] if c["type"] == "operating-system"]


def test_a_distribution_has_its_licence_and_what_its_wheel_bundles(
    sbom, site_packages, database, tmp_path
):
    bill = written(sbom, site_packages, database, tmp_path / "bill.json")
    distribution = by_reference(bill)["pkg:pypi/made-up@1"]
    assert distribution["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    grafted = "pkg:pypi/made-up@1#made_up.libs/libquadmath-1.so"
    assert children(bill, "pkg:pypi/made-up@1") == {"pkg:rpm/alma/libgomp@8", grafted}
    assert by_reference(bill)[grafted]["hashes"][0]["alg"] == "SHA-256"


def test_the_jars_libraries_are_listed_under_multi_model_server(whole):
    version = importlib.metadata.version("multi-model-server")
    assert children(whole, f"pkg:pypi/multi-model-server@{version}") >= {
        "pkg:maven/io.netty/netty-codec-http@4.1.91.Final",
        "pkg:maven/org.apache.logging.log4j/log4j-api@2.17.1",
        "pkg:maven/org.apache.logging.log4j/log4j-core@2.17.1",
        "pkg:maven/org.apache.logging.log4j/log4j-slf4j-impl@2.17.1",
        "pkg:maven/com.google.code.gson/gson@2.8.9",
        "pkg:maven/org.slf4j/slf4j-api@1.7.32",
        "pkg:maven/commons-io/commons-io@2.6",
        "pkg:maven/commons-cli/commons-cli@1.3.1",
        "pkg:maven/com.lmax/disruptor@3.4.4",
    }


LOG4J_MODULE = "META-INF/versions/9/module-info.class"


@pytest.mark.parametrize(
    ("names", "changed", "reason"),
    [
        (["com/example/New.class"], {}, "New.class is of no library"),
        (["org/apache/commons/io/IOUtils.class"], {}, "commons-io: not a build that is known"),
        (["com/google/gson/Gson.class"], {}, "gson: nothing in the jar says its version"),
        (["io/netty/util/Version.class"], {}, "netty: nothing in the jar says its version"),
        (
            [LOG4J_MODULE, "org/apache/logging/log4j/core/Core.class"],
            {"META-INF/DEPENDENCIES": b"org.apache.logging.log4j:log4j-core:jar:2.20.0"},
            "log4j-api is 2.17.1, log4j-core {'2.20.0'}",
        ),
    ],
)
def test_a_jar_that_cannot_be_listed_truthfully_is_refused(sbom, tmp_path, names, changed, reason):
    """Rather than listed without a library, or under a version that it does not have."""
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(installed() / "mms/frontend/model-server.jar") as real:
        files = {n: real.read(n) if n in real.namelist() else b"class" for n in names} | changed
    with zipfile.ZipFile(jar, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(sbom.UnknownContents) as caught:
        sbom.java_libraries(jar)
    assert reason in str(caught.value)


def test_what_cannot_be_listed_fails_the_build(sbom, site_packages, database, tmp_path, capsys):
    jar = site_packages / "mms/frontend/model-server.jar"
    jar.parent.mkdir(parents=True)
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("com/example/New.class", b"class")
    with (site_packages / "Made_Up-1.dist-info/RECORD").open("a") as record:
        record.write("mms/frontend/model-server.jar,,\n")
    output = tmp_path / "bill.json"
    arguments = ["--site-packages", str(site_packages), "--admindir", str(database)]
    assert sbom.main([*arguments, "--output", str(output)]) == 1
    assert "com/example/New.class" in capsys.readouterr().err
    assert not output.exists()
