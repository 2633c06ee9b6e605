"""Checks a lock file against known vulnerabilities.

    python container/audit.py container/requirements.txt
    python container/audit.py --advisories advisory-database container/requirements.txt

The first asks PyPI by pip-audit. The second needs no network: it reads a checkout of
https://github.com/pypa/advisory-database. The exit status is 0 if every package of the lock was
looked up and nothing applies, 1 if something applies, and 2 if that is not known of all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

NOTHING, SOMETHING, UNKNOWN = 0, 1, 2
_SERVICE_SECONDS = 600
_NOT_HERE = "not for this Python"


class AuditError(Exception):
    """The lock, or the database, cannot be read or asked."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A distribution by its canonical name, at the version that the lock pins."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A vulnerability that applies to a package of the lock."""

    package: Package
    advisory: str
    aliases: tuple[str, ...]
    fixed_in: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What a database answered, and which packages it did not answer for."""

    source: str
    findings: list[Finding]
    not_asked: dict[Package, str]


def read_lock(lock: Path) -> list[Package]:
    """Return what a lock pins, for every Python and platform, sorted.

    Raises:
        AuditError: it cannot be read, pins nothing, or has a line that is no pin.
    """
    try:
        text = re.sub(r"\\\n", " ", lock.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{lock} cannot be read: {error}") from error
    packages = set()
    for line in text.splitlines():
        requirement = re.sub(r"(^|\s)#.*|\s--hash\S*", "", line).strip()
        if requirement and not requirement.startswith("-"):
            packages.add(_pin(requirement))
    if not packages:
        raise AuditError(f"{lock} pins nothing")
    return sorted(packages)


def _pin(text: str) -> Package:
    try:
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
    except (InvalidRequirement, ValueError):
        raise AuditError(f"no package at one version: {text!r}") from None
    if specifier.operator != "==" or "*" in specifier.version:
        raise AuditError(f"no package at one version: {text!r}")
    return Package(canonicalize_name(requirement.name), specifier.version)


def ask_checkout(packages: list[Package], checkout: Path) -> Audit:
    """Look packages up in the OSV files of a checkout of pypa/advisory-database.

    Raises:
        AuditError: there are no advisories.
    """
    files = sorted(checkout.glob("vulns/*/*.yaml"))
    if not files:
        raise AuditError(f"{checkout} has no vulns/*/*.yaml: no checkout of advisory-database")
    findings = []
    wanted = {package.name for package in packages}
    for file in files:
        if canonicalize_name(file.parent.name) in wanted:
            advisory = yaml.safe_load(file.read_text())
            findings += [found for p in packages if (found := applies(advisory, p)) is not None]
    last = _last_change(files)
    age = (date.today() - last).days
    source = f"{len(files)} advisories, the last changed {last}, {age} days ago"
    return Audit(source, sorted(findings), {})


def _last_change(files: Iterable[Path]) -> date:
    pattern = re.compile(r"(?m)^(?:modified|published): [\"']?(\d{4}-\d\d-\d\d)")
    days = (day for file in files for day in pattern.findall(file.read_text()))
    return date.fromisoformat(max(days, default="1970-01-01"))


def applies(advisory: dict[str, Any], package: Package) -> Finding | None:
    """Return the finding if an OSV advisory is of this package at this version."""
    if advisory.get("withdrawn"):
        return None
    for affected in advisory.get("affected", ()):
        of = affected.get("package", {})
        if of.get("ecosystem") != "PyPI" or canonicalize_name(of.get("name", "")) != package.name:
            continue
        ranges = [r for r in affected.get("ranges", ()) if r.get("type") == "ECOSYSTEM"]
        if package.version in map(str, affected.get("versions", ())) or any(
            _within(r["events"], package.version) for r in ranges
        ):
            fixed = (str(e["fixed"]) for r in ranges for e in r["events"] if "fixed" in e)
            return Finding(
                package,
                advisory["id"],
                tuple(sorted(advisory.get("aliases", ()))),
                tuple(fixed),
                " ".join(advisory.get("summary", advisory.get("details", "")).split()),
            )
    return None


def _within(events: list[dict[str, Any]], version: str) -> bool:
    """Whether a version is affected by OSV's events: each changes what holds from there on.

    A version that cannot be ordered counts as affected: a person has to look.
    """
    try:
        at = Version(version)
        changes = [(Version(str(v)), kind) for event in events for kind, v in event.items()]
    except InvalidVersion:
        return True
    affected = False
    for where, kind in sorted(changes):
        if kind == "introduced" and at >= where:
            affected = True
        elif (kind == "fixed" and at >= where) or (kind == "last_affected" and at > where):
            affected = False
    return affected


def ask_service(packages: list[Package], lock: Path) -> Audit:
    """Look the lock up by pip-audit, as far as its markers hold for this Python.

    Raises:
        AuditError: pip-audit is not installed, or its service does not answer.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_SERVICE_SECONDS, check=False
        )
        answer = json.loads(asked.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise AuditError(f"pip-audit had no answer in {_SERVICE_SECONDS} s") from error
    except (ValueError, KeyError, TypeError):
        reason = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        raise AuditError(f"pip-audit: {reason[:300]}") from None
    return _from_service(packages, answer)


def _from_service(packages: list[Package], answer: list[dict[str, Any]]) -> Audit:
    findings: list[Finding] = []
    not_asked = dict.fromkeys(packages, _NOT_HERE)
    for entry in answer:
        name = canonicalize_name(entry["name"])
        if "skip_reason" in entry:
            for package in not_asked:
                if package.name == name:
                    not_asked[package] = entry["skip_reason"]
            continue
        package = Package(name, entry["version"])
        not_asked.pop(package, None)
        for found in entry["vulns"]:
            aliases, fixed = tuple(found["aliases"]), tuple(found["fix_versions"])
            summary = " ".join(found.get("description", "").split())
            findings.append(Finding(package, found["id"], aliases, fixed, summary))
    return Audit("PyPI, asked now", sorted(findings), not_asked)


def lines(audit: Audit, packages: list[Package]) -> Iterator[str]:
    """The audit in words; of packages that were not looked up it says nothing but that."""
    if audit.findings:
        yield "| Package | Advisory | Also | Fixed in | |"
        yield "|---|---|---|---|---|"
    for f in audit.findings:
        also, fixed = ", ".join(f.aliases), ", ".join(f.fixed_in) or "no version"
        pinned = f"{f.package.name} {f.package.version}"
        summary = f.summary[:120].replace("|", "/")
        yield f"| {pinned} | {f.advisory} | {also} | {fixed} | {summary} |"
    reasons: dict[str, list[str]] = {}
    for package, reason in audit.not_asked.items():
        reason = re.sub(r":? *\S+ \([^)]*\)$", "", reason)
        reasons.setdefault(reason, []).append(f"{package.name} {package.version}")
    for reason, names in reasons.items():
        yield f"not looked up: {', '.join(names)} ({reason})"
    asked = len(packages) - len(audit.not_asked)
    result = f"{len(audit.findings)} findings" if audit.findings else "nothing applies to these"
    result = result if asked else "nothing is known"
    yield f"{asked} of {len(packages)} packages looked up ({audit.source}): {result}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--advisories", type=Path, help="a checkout of pypa/advisory-database")
    parser.add_argument("lock", type=Path, help="a requirements file with each version pinned")
    options = parser.parse_args(arguments)
    try:
        packages = read_lock(options.lock)
        if options.advisories is None:
            audit = ask_service(packages, options.lock)
        else:
            audit = ask_checkout(packages, options.advisories)
    except AuditError as error:
        print(f"audit: nothing was looked up: {error}", file=sys.stderr)
        return UNKNOWN
    print("\n".join(lines(audit, packages)))
    if audit.findings:
        return SOMETHING
    skipped = [reason for reason in audit.not_asked.values() if reason != _NOT_HERE]
    return UNKNOWN if skipped else NOTHING


if __name__ == "__main__":
    raise SystemExit(main())
