"""Installing a model's requirements into a cache: once for each content, by one process."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from manymodels.errors import ModelLoadError

_PIP = (
    # Isolated: not what the model's own directories, or PYTHONPATH, have of pip's modules.
    *("-I", "-m", "pip", "install", "--no-user", "--no-input", "--no-color", "--quiet"),
    *("--disable-pip-version-check", "--no-warn-script-location"),
)
_ERROR = "ERROR: "
_PR_SET_PDEATHSIG = 1


def install(path: Path, files: Sequence[Path], cache: Path, timeout: float) -> Path:
    """Return the directory in ``cache`` that has what ``path`` asks for, installed if need be.

    Args:
        path: the requirements file.
        files: the files that it consists of; their content, this Python and the platform decide
            what is installed already.
        cache: a directory, made if it is not there; whoever may write into it runs code here.
        timeout: seconds that pip may take.

    Raises:
        ModelLoadError: pip fails, or the cache cannot be used; nothing half-written stays.
    """
    key = _key(files)
    target = cache / key
    try:
        _claim(cache)
        if target.is_dir():
            return target
        with _locked(cache / f"{key}.lock"):
            if not target.is_dir():
                _install_anew(path, target, timeout)
    except OSError as error:
        raise ModelLoadError(
            f"the requirements cannot be installed into {cache}: {error.strerror or error} "
            "(MANYMODELS_REQUIREMENTS_CACHE)"
        ) from error
    return target


def _key(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {sysconfig.get_platform()}".encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _claim(cache: Path) -> None:
    """Make the cache, or refuse one that another user has put there."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = cache.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise PermissionError(f"it belongs to the user {owner}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process at the latest."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install_anew(path: Path, target: Path, timeout: float) -> None:
    prefix = f".{target.name}-"
    for left_behind in target.parent.glob(f"{prefix}*"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        _run_pip(path, temporary, timeout)
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _run_pip(path: Path, target: Path, timeout: float) -> None:
    command = [sys.executable, *_PIP, "--target", str(target), "--requirement", str(path)]
    process = subprocess.Popen(
        command,
        cwd=path.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_dies_with_parent(),
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise ModelLoadError(
            f"installing {path.name} was not done after {timeout:g} s, and was ended"
        ) from error
    except BaseException:
        _end_group(process)
        raise
    if process.returncode != 0:
        raise ModelLoadError(f"installing {path.name} failed: {_last_error(output)}")


def _dies_with_parent() -> Callable[[], object] | None:
    """Return what has the kernel end pip with the model's process, however that ends."""
    if sys.platform != "linux":
        return None
    # Looked up before the fork: there only the call itself is safe.
    return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _end_group(process: subprocess.Popen[str]) -> None:
    """Kill pip and what it started; not for one that has ended and whose id may be another's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return (errors or lines or ["pip says nothing"])[-1]
