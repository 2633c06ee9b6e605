"""The Java libraries in Multi Model Server's jar, which is merged from theirs.

Such a jar has no list of what went into it. Netty, Gson and log4j-api say their versions in files
of theirs; the others are told by the digest of their classes.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path


class UnknownContents(Exception):
    """Something is there that cannot be listed truthfully."""


@dataclass(frozen=True, slots=True)
class JavaLibrary:
    """Maven coordinates, and an SPDX licence expression."""

    group: str
    artifact: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True)
class _Known:
    group: str
    artifact: str
    packages: tuple[str, ...]
    licence: str = "Apache-2.0"
    builds: tuple[tuple[str, str], ...] = ()
    """(digest of its classes, version), where nothing in the jar says the version."""


_LOG4J = "org.apache.logging.log4j"
_GSON = "com.google.gson"
# commons-io and slf4j-api are equal, class by class, to the published jars of these versions.
# The others are what MMS 1.1.11 is built with by its build file, and dated as those releases are.
_KNOWN = (
    _Known("com.google.code.gson", "gson", ("com/google/gson/",)),
    _Known(_LOG4J, "log4j-core", ("org/apache/logging/log4j/core/",)),
    _Known(_LOG4J, "log4j-api", ("org/apache/logging/log4j/",)),
    _Known(_LOG4J, "log4j-slf4j-impl", ("org/apache/logging/slf4j/", "org/slf4j/impl/")),
    _Known(
        "org.slf4j",
        "slf4j-api",
        ("org/slf4j/",),
        "MIT",
        (("49fc693ebb3be939f16b7dc77a6a644f99210e6be54c230f81063200d94e94f8", "1.7.32"),),
    ),
    _Known(
        "commons-cli",
        "commons-cli",
        ("org/apache/commons/cli/",),
        builds=(("561175a8c1e0329914822acc7273b2a3c7a118994cb3c626159c2d77a124c57e", "1.3.1"),),
    ),
    _Known(
        "commons-io",
        "commons-io",
        ("org/apache/commons/io/",),
        builds=(("31976aa4932ab3d7fb0725f281cd86ee749ecdec3f90e4355fac84325c104889", "2.6"),),
    ),
    _Known(
        "com.lmax",
        "disruptor",
        ("com/lmax/disruptor/",),
        builds=(("72586541b7bfe2b21788c10efd9a2651a8b0725f119587ea22b8bad6582a85ba", "3.4.4"),),
    ),
    _Known(
        "software.amazon.ai",
        "mms-plugins-sdk",
        ("software/amazon/ai/mms/",),
        builds=(("38170e715c41954f0e71de150842a2e89a29afa08dc44a430c2f083b4f0c8043", "1.0.1"),),
    ),
)
_NETTY = "io/netty/"
_OWN = "com/amazonaws/ml/mms/"


@dataclass(frozen=True, slots=True)
class _Contents:
    classes: dict[str, str]
    """Digests by name."""
    netty: dict[str, str]
    """Versions by artifact."""
    modules: dict[str, str]
    """Versions by name."""
    log4j_cores: set[str]
    """Versions of log4j-core that Log4j's SLF4J binding names: that of its own release."""


def java_libraries(jar: Path) -> list[JavaLibrary]:
    """Return the libraries whose classes are in MMS's jar, sorted.

    Raises:
        UnknownContents: it has classes of no known library, or a version cannot be told.
    """
    with zipfile.ZipFile(jar) as archive:
        contents = _read(archive)
    if not contents.netty and any(name.startswith(_NETTY) for name in contents.classes):
        raise UnknownContents("netty: nothing in the jar says its version")
    found = [
        JavaLibrary("io.netty", artifact, version, "Apache-2.0")
        for artifact, version in contents.netty.items()
    ]
    for known in _KNOWN:
        own = sorted(name for name in contents.classes if _owner(name) is known)
        if own:
            lines = "".join(f"{name} {contents.classes[name]}\n" for name in own)
            version = _version(known, hashlib.sha256(lines.encode()).hexdigest(), contents)
            found.append(JavaLibrary(known.group, known.artifact, version, known.licence))
    return sorted(found, key=lambda library: (library.group, library.artifact))


def _read(archive: zipfile.ZipFile) -> _Contents:
    """Read all entries: of one name there are several, each from another of the merged jars."""
    contents = _Contents({}, {}, {}, set())
    for entry in archive.infolist():
        name = entry.filename
        if name.endswith("module-info.class"):
            contents.modules.update(_module(archive.read(entry)))
        elif name.endswith(".class"):
            contents.classes[name] = hashlib.sha256(archive.read(entry)).hexdigest()
        elif name == "META-INF/io.netty.versions.properties":
            text = archive.read(entry).decode()
            contents.netty.update(re.findall(r"(?m)^(netty-[\w-]+)\.version=(\S+)$", text))
        elif name == "META-INF/DEPENDENCIES":
            text = archive.read(entry).decode()
            contents.log4j_cores.update(re.findall(r"log4j-core:jar:(\S+)", text))
    for name in contents.classes:
        _owner(name)
    return contents


def _owner(class_name: str) -> _Known | None:
    """Return the library that a class is of, None for MMS's own and Netty's."""
    name = re.sub(r"^META-INF/versions/\d+/", "", class_name)
    for known in _KNOWN:
        if name.startswith(known.packages):
            return known
    if name.startswith((_NETTY, _OWN)):
        return None
    raise UnknownContents(f"{class_name} is of no library that is known here")


def _version(known: _Known, digest: str, contents: _Contents) -> str:
    if known.builds:
        version = dict(known.builds).get(digest)
        if version is None:
            raise UnknownContents(f"{known.artifact}: not a build that is known, {digest}")
        return version
    version = contents.modules.get(_LOG4J if known.group == _LOG4J else _GSON)
    if version is None:
        raise UnknownContents(f"{known.artifact}: nothing in the jar says its version")
    if known.artifact in ("log4j-core", "log4j-slf4j-impl") and contents.log4j_cores != {version}:
        raise UnknownContents(
            f"{known.artifact}: log4j-api is {version}, log4j-core {contents.log4j_cores}"
        )
    return version


def _module(data: bytes) -> dict[str, str]:
    """Return {module: version} of a module-info.class, as JVMS 4.1 and 4.7.25 lay it out."""
    sizes = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3}
    sizes |= {16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
    (count,) = struct.unpack_from(">H", data, 8)
    texts: dict[int, str] = {}
    modules: dict[int, int] = {}
    position, index = 10, 1
    while index < count:
        tag = data[position]
        (number,) = struct.unpack_from(">H", data, position + 1)
        if tag == 1:
            texts[index] = data[position + 3 : position + 3 + number].decode(errors="replace")
        elif tag == 19:
            modules[index] = number
        position += 3 + number if tag == 1 else 1 + sizes[tag]
        index += 2 if tag in (5, 6) else 1
    # A module has no superclass, interfaces, fields or methods: seven numbers, then attributes.
    position += 14
    while position < len(data):
        name, size, module, _, version = struct.unpack_from(">HIHHH", data, position)
        if texts[name] == "Module":
            return {texts[modules[module]]: texts[version]} if version else {}
        position += 6 + size
    return {}
