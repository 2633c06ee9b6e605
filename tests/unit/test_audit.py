"""The audit of a lock: what applies is found, and what was not looked up is not called safe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="PyYAML is not installed")

from container import audit

LOCK = """\
alpha==1.5 \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via beta
Beta_Two==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:22
beta-two==3.0 ; python_full_version >= '3.12' \\
    --hash=sha256:33
"""
ADVISORY = """\
id: PYSEC-1
details: Beta lets | anyone in.
affected:
- package:
    name: Beta.Two
    ecosystem: PyPI
  ranges:
  - type: ECOSYSTEM
    events:
    - introduced: "0"
    - fixed: "2.5"
aliases:
- CVE-1
modified: "2024-10-10T00:00:00Z"
"""


@pytest.fixture
def lock(tmp_path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(LOCK)
    return path


@pytest.fixture
def checkout(tmp_path) -> Path:
    file = tmp_path / "database/vulns/beta-two/PYSEC-1.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(ADVISORY)
    return tmp_path / "database"


@pytest.fixture
def service(monkeypatch):
    """Has pip-audit answer what a test says."""

    def answers(stdout: str, stderr: str = "", status: int = 0) -> None:
        answer = subprocess.CompletedProcess([], status, stdout, stderr)
        monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: answer)

    return answers


def test_the_lock_is_read_for_every_python(lock):
    assert [(p.name, p.version) for p in audit.read_lock(lock)] == [
        ("alpha", "1.5"),
        ("beta-two", "2.0"),
        ("beta-two", "3.0"),
    ]


@pytest.mark.parametrize("text", ["", "alpha>=1\n", "alpha==1.*\n", "alpha\n", "./alpha.whl\n"])
def test_what_is_no_lock_is_refused(tmp_path, text, capsys):
    lock = tmp_path / "requirements.txt"
    lock.write_text(text)
    assert audit.main([str(lock)]) == audit.UNKNOWN
    assert "nothing was looked up" in capsys.readouterr().err


def test_an_advisory_of_a_pinned_version_is_a_row_and_status_1(lock, checkout, capsys):
    assert audit.main(["--advisories", str(checkout), str(lock)]) == audit.SOMETHING
    out = capsys.readouterr().out
    assert "| beta-two 2.0 | PYSEC-1 | CVE-1 | 2.5 | Beta lets / anyone in. |" in out
    assert "beta-two 3.0" not in out
    assert "1 advisories, the last changed 2024-10-10," in out


def test_nothing_that_applies_is_status_0_with_the_databases_date(tmp_path, checkout, capsys):
    lock = tmp_path / "requirements.txt"
    lock.write_text("alpha==1.5\nbeta-two==2.5\n")
    assert audit.main(["--advisories", str(checkout), str(lock)]) == audit.NOTHING
    assert "2 of 2 packages looked up (1 advisories, the last changed 2024-10-10" in (
        capsys.readouterr().out
    )


def test_a_directory_without_advisories_is_no_database(lock, tmp_path, capsys):
    assert audit.main(["--advisories", str(tmp_path), str(lock)]) == audit.UNKNOWN
    assert "no checkout of advisory-database" in capsys.readouterr().err


def advisory(**affected) -> dict:
    package = {"name": "alpha", "ecosystem": "PyPI"}
    return {"id": "PYSEC-2", "affected": [{"package": package, **affected}]}


def ranges(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict:
    return advisory(ranges=[{"type": kind, "events": list(events)}])


@pytest.mark.parametrize(
    ("record", "version", "expected"),
    [
        (ranges({"introduced": "0"}), "99", True),
        (ranges({"introduced": "0"}, {"fixed": "1.10"}), "1.9", True),
        (ranges({"introduced": "0"}, {"fixed": "1.10"}), "1.10", False),
        (ranges({"introduced": "2"}, {"fixed": "3"}), "1.9", False),
        (ranges({"introduced": "0"}, {"last_affected": "2.0"}), "2.0", True),
        (ranges({"introduced": "0"}, {"last_affected": "2.0"}), "2.0.1", False),
        (ranges({"fixed": "1.2"}, {"introduced": "2"}, {"introduced": "1"}), "2.1", True),
        (ranges({"introduced": "0"}, kind="GIT"), "1.0", False),
        (advisory(versions=["1.0"]), "1.0", True),
        (advisory(versions=["1.0"]), "1.1", False),
        (ranges({"introduced": "0"}, {"fixed": "not a version"}), "1.0", True),
        ({**ranges({"introduced": "0"}), "withdrawn": "2024-01-01"}, "1.0", False),
    ],
)
def test_versions_are_compared_as_osv_says(record, version, expected):
    found = audit.applies(record, audit.Package("alpha", version))
    assert (found is not None) is expected


def test_another_ecosystems_package_of_the_name_is_not_meant():
    record = ranges({"introduced": "0"})
    record["affected"][0]["package"]["ecosystem"] = "npm"
    assert audit.applies(record, audit.Package("alpha", "1.0")) is None


def test_the_service_s_findings_are_rows(lock, service, capsys):
    found = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.5"], "description": "Bad"}
    answer = [
        {"name": "alpha", "version": "1.5", "vulns": []},
        {"name": "beta_two", "version": "2.0", "vulns": [found]},
    ]
    service(json.dumps({"dependencies": answer}), status=1)
    assert audit.main([str(lock)]) == audit.SOMETHING
    out = capsys.readouterr().out
    assert "| beta-two 2.0 | PYSEC-1 | CVE-1 | 2.5 | Bad |" in out
    assert "not looked up: beta-two 3.0 (not for this Python)" in out


def test_another_pythons_pin_is_named_and_does_not_make_the_rest_unknown(lock, service, capsys):
    pins = (("alpha", "1.5"), ("beta-two", "2.0"))
    answer = [{"name": name, "version": version, "vulns": []} for name, version in pins]
    service(json.dumps({"dependencies": answer}))
    assert audit.main([str(lock)]) == audit.NOTHING
    out = capsys.readouterr().out
    assert "not looked up: beta-two 3.0 (not for this Python)" in out
    assert "2 of 3 packages looked up (PyPI, asked now): nothing applies to these" in out


def test_packages_that_the_service_skips_are_never_called_safe(lock, service, capsys):
    reason = "Dependency not found on PyPI and could not be audited: {}"
    answer = [
        {"name": name, "skip_reason": reason.format(f"{name} ({version})")}
        for name, version in (("alpha", "1.5"), ("beta-two", "2.0"), ("beta-two", "3.0"))
    ]
    service(json.dumps({"dependencies": answer}))
    assert audit.main([str(lock)]) == audit.UNKNOWN
    out = capsys.readouterr().out
    assert "not looked up: alpha 1.5, beta-two 2.0, beta-two 3.0" in out
    assert "0 of 3 packages looked up" in out
    assert "nothing is known" in out
    assert "nothing applies" not in out


def test_a_service_that_does_not_answer_is_said(lock, service, capsys):
    service("", "Traceback ...\nConnectionError: no route to host", status=1)
    assert audit.main([str(lock)]) == audit.UNKNOWN
    assert "pip-audit: ConnectionError: no route to host" in capsys.readouterr().err
