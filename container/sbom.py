"""Writes a CycloneDX bill of materials of the root file system that it runs in.

Listed are Debian's packages, the distributions of one site-packages directory with the libraries
that their wheels bundle, and the Java libraries in Multi Model Server's jar. The same files give
the same bytes: there is no random serial number, and a time only if SOURCE_DATE_EPOCH says one.

    python sbom.py --site-packages /opt/venv/lib/python3.11/site-packages --output sbom.cdx.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from sbom_java import UnknownContents, java_libraries

_NAMESPACE = uuid.UUID("a5d0e6a1-6d0e-5b7e-9c1c-6a2f6d2b8f10")
DPKG = Path("/var/lib/dpkg")
_LONGEST_LICENCE = 100
"""Some distributions have the whole text where its name belongs."""


# -- Python distributions ------------------------------------------------------------------


def python_components(site_packages: Path) -> Iterator[tuple[Component, list[Component]]]:
    """Yield each distribution, and with it what its wheel bundles."""
    for distribution in distributions(path=[str(site_packages)]):
        name, version = distribution.name, distribution.version
        purl = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
        bundled = [*_wheel_sboms(distribution, purl), *_native_libraries(distribution, purl)]
        for path in distribution.files or ():
            if path.match("mms/frontend/model-server.jar"):
                bundled += _java_components(Path(str(distribution.locate_file(path))))
        yield _component(name, version, purl, _licence(distribution)), bundled


def _java_components(jar: Path) -> Iterator[Component]:
    for library in java_libraries(jar):
        purl = PackageURL("maven", library.group, library.artifact, library.version)
        yield _component(library.artifact, library.version, purl, library.licence, library.group)


def _wheel_sboms(distribution: Distribution, parent: PackageURL) -> Iterator[Component]:
    """What the wheel's own bills of materials list (PEP 770): Rust crates, grafted libraries."""
    for path in distribution.files or ():
        if not path.match("*.dist-info/sboms/*.json"):
            continue
        text = Path(str(distribution.locate_file(path))).read_text()
        # The library's class decorator adds this method.
        wheel: Bom = Bom.from_json(json.loads(text))  # type: ignore[attr-defined]
        for outer in wheel.components:
            for component in outer.get_all_nested_components(include_self=True):
                purl = component.purl
                if purl is None or (purl.type == "pypi" and _same(purl.name, parent.name)):
                    continue
                yield Component(
                    name=component.name,
                    version=component.version,
                    type=component.type,
                    purl=purl,
                    bom_ref=purl.to_string(),
                    licenses=component.licenses,
                )


def _same(name: str, canonical: str) -> bool:
    return re.sub(r"[-_.]+", "-", name).lower() == canonical


def _native_libraries(distribution: Distribution, parent: PackageURL) -> Iterator[Component]:
    """The shared libraries that were grafted into the wheel, as files: most say no version."""
    for path in distribution.files or ():
        if path.parts[0].endswith(".libs"):
            data = Path(str(distribution.locate_file(path))).read_bytes()
            yield Component(
                name=str(path),
                type=ComponentType.FILE,
                bom_ref=f"{parent.to_string()}#{path}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_sha256(data))],
            )


def _licence(distribution: Distribution) -> str | None:
    """Return an SPDX expression where the distribution has one, else what it says of itself."""
    metadata = distribution.metadata
    for key in ("License-Expression", "License"):
        value = (metadata[key] or "").strip() if key in metadata else ""
        if value and "\n" not in value and len(value) <= _LONGEST_LICENCE and value != "UNKNOWN":
            return value
    classifiers = metadata.get_all("Classifier") or []
    names = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    return " / ".join(sorted(names)) or None


# -- Debian packages -----------------------------------------------------------------------


def debian_components(database: Path) -> Iterator[Component]:
    """Yield the operating system and its installed packages; nothing where there is no dpkg.

    Args:
        database: dpkg's directory, whose ``status`` file lists the packages.
    """
    if shutil.which("dpkg-query") is None:
        return
    release = platform.freedesktop_os_release()
    distro = f"{release['ID']}-{release.get('VERSION_ID', 'unstable')}"
    yield Component(
        name=release["ID"],
        version=release.get("VERSION_ID"),
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"os:{distro}",
    )
    fields = ("Package", "Version", "Architecture", "source:Package", "db:Status-Status")
    pattern = "\\t".join(f"${{{field}}}" for field in fields) + "\\n"
    listing = subprocess.run(
        ["dpkg-query", f"--admindir={database}", "--show", f"--showformat={pattern}"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listing.stdout.splitlines():
        name, version, architecture, source, status = line.split("\t")
        if status == "installed":
            # Debian's advisories are by source package, which scanners read as `upstream`.
            qualifiers = {"arch": architecture, "distro": distro, "upstream": source}
            yield _component(name, version, PackageURL("deb", "debian", name, version, qualifiers))


# -- the bill ------------------------------------------------------------------------------


def bill(site_packages: Path, database: Path = DPKG, epoch: int | None = None) -> Bom:
    """Return the bill of materials of a site-packages directory and of dpkg's packages.

    Args:
        site_packages: Where the distributions are.
        database: dpkg's directory.
        epoch: The bill's time in seconds since 1970; None for a bill without one.

    Raises:
        UnknownContents: something cannot be listed truthfully.
    """
    image = Component(name="image", type=ComponentType.CONTAINER, bom_ref="image")
    components: dict[str, Component] = {}
    depends: dict[str, set[str]] = {"image": set()}

    def add(component: Component, parent: str) -> str:
        reference = str(component.bom_ref.value)
        components.setdefault(reference, component)
        depends.setdefault(parent, set()).add(reference)
        return reference

    for component in debian_components(database):
        add(component, "image")
    for component, bundled in python_components(site_packages):
        reference = add(component, "image")
        if component.name == "manymodels":
            image.name, image.version = component.name, component.version
        for inner in bundled:
            add(inner, reference)
    bom = Bom(components=components.values(), serial_number=_serial(components, depends))
    bom.metadata = _metadata(image, epoch)
    everything = {**components, "image": image}
    for parent, children in depends.items():
        bom.register_dependency(everything[parent], [components[child] for child in children])
    return bom


def _metadata(image: Component, epoch: int | None) -> BomMetaData:
    metadata = BomMetaData(component=image)
    when = None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)
    # The standard does not ask for a time, and the moment of the build would make each differ.
    metadata.timestamp = when  # type: ignore[assignment]
    return metadata


def _serial(components: Iterable[str], depends: dict[str, set[str]]) -> uuid.UUID:
    """A serial number that is the contents' own."""
    lines = [
        *sorted(components),
        *(f"{p} {c}" for p in sorted(depends) for c in sorted(depends[p])),
    ]
    return uuid.uuid5(_NAMESPACE, "\n".join(lines))


def _component(
    name: str, version: str, purl: PackageURL, licence: str | None = None, group: str | None = None
) -> Component:
    return Component(
        name=name,
        version=version,
        group=group,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else None,
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--site-packages", type=Path, required=True, help="of the environment")
    parser.add_argument(
        "--admindir", type=Path, default=DPKG, help="dpkg's database (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    if not options.site_packages.is_dir():
        parser.error(f"{options.site_packages} is no directory")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        bom = bill(options.site_packages, options.admindir, int(epoch) if epoch else None)
    except UnknownContents as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    options.output.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
    print(f"sbom: {len(bom.components)} components in {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
