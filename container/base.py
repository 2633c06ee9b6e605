"""A Debian base made from Debian's packages, for machines that can pull no image."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from container.engine import Engine, EngineError

SUITE = "bookworm"
PULLED = f"debian:{SUITE}-slim"
MADE = f"localhost/debian:{SUITE}-slim"
# What Debian's own slim image leaves out, too.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")


def base(engine: Engine) -> str:
    """Return the name of a base that is here: pulled if that works, else made (half a minute)."""
    for image in (MADE, PULLED):
        if engine.has_image(image):
            return image
    if not engine.command("pull", PULLED, timeout=600).returncode:
        return PULLED
    if shutil.which("mmdebstrap") is None:
        raise EngineError(f"{PULLED} cannot be pulled, and mmdebstrap is not here to make it")
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory, "base.tar")
        _make(archive)
        engine.output("import", str(archive), MADE)
    return MADE


def _make(archive: Path) -> None:
    # usr-is-merged in place of usrmerge, which brings 45 MB of Perl. The JRE's packages want to
    # write to man1.
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--include=usr-is-merged",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        '--customize-hook=mkdir -p "$1/usr/share/man/man1"',
        SUITE,
        str(archive),
        *_sources(),
    ]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise EngineError("mmdebstrap could not make a base")


def _sources() -> list[str]:
    """Return this machine's own sources if it is of the same Debian, else mmdebstrap's default."""
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != SUITE:
        return []
    places = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
    return [str(path) for path in places if path.is_file()]
