"""What the zygote imports before it forks. Each case is a process of its own, as the zygote is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manymodels.backend.host import ONE_THREAD

PRELUDE = """
import gc, json, os, sys
from manymodels.backend import heap, linux
from manymodels.backend.preload import StartsThreads, preload

def tell(**facts):
    print(json.dumps(facts), flush=True)
    sys.stdout.flush()
    os._exit(0)

def try_to_preload(*libraries):
    try:
        tell(imported=preload(libraries), threads=linux.thread_count())
    except StartsThreads as error:
        tell(starts_threads=error.library, message=str(error), threads=linux.thread_count())
    except BaseException as error:
        tell(raised=repr(error))
"""
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


class Outcome(NamedTuple):
    """What a process told, and what it wrote to stderr."""

    facts: dict[str, Any]
    errors: str


def run(code: str, path: Path | str = "", **environment: str) -> Outcome:
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={
            **os.environ,
            **ONE_THREAD,
            "PYTHONPATH": str(path),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return Outcome(json.loads(ended.stdout), ended.stderr)


@pytest.fixture
def libraries(tmp_path) -> Path:
    """A directory of fake libraries."""
    for name, source in {
        "starts_thread": THREAD,
        "starts_thread_and_raises": THREAD + "raise ImportError('half way')",
        "raises": "raise RuntimeError('not on this machine')",
        "exits": "raise SystemExit(3)",
        "warns": "import warnings\nwarnings.warn('do not look')",
        "harmless": "VALUE = 1",
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "threads_package").mkdir()
    (tmp_path / "threads_package" / "__init__.py").write_text(THREAD)
    return tmp_path


def test_without_libraries_only_our_own_modules_are_imported_and_one_thread_is_left():
    code = """
imported = preload(())
tell(
    imported=imported,
    ours=[n for n in ("mms.context", "mms.service", "manymodels.service") if n in sys.modules],
    libraries=[n for n in ("sklearn", "xgboost", "pandas") if n in sys.modules],
    threads=linux.thread_count(),
    frozen=gc.get_freeze_count(),
    tracked=len(gc.get_objects()),
)
"""
    facts, errors = run(code)
    assert facts["imported"] == []
    assert facts["ours"] == ["mms.context", "mms.service", "manymodels.service"]
    assert facts["libraries"] == []
    assert facts["threads"] == 1
    assert facts["frozen"] > 1000 > facts["tracked"]
    assert errors == ""


def test_the_names_of_what_is_imported_come_back_without_those_that_are_not_installed(libraries):
    facts, errors = run("try_to_preload('harmless', 'not_installed_anywhere')", libraries)
    assert facts == {"imported": ["harmless"], "threads": 1}
    assert "not_installed_anywhere" in errors
    assert "Traceback" not in errors


def test_a_library_that_starts_a_thread_is_named(libraries):
    facts, _ = run("try_to_preload('harmless', 'starts_thread')", libraries)
    assert facts == {"starts_threads": "starts_thread", "message": "starts_thread", "threads": 2}


def test_a_library_that_cannot_be_imported_is_skipped_with_a_warning_that_names_it(libraries):
    facts, errors = run("try_to_preload('raises', 'harmless')", libraries)
    assert facts == {"imported": ["harmless"], "threads": 1}
    assert "cannot preload raises; models import it themselves" in errors
    assert "RuntimeError: not on this machine" in errors


def test_the_warnings_of_a_library_are_for_the_models_that_import_it(libraries):
    assert run("try_to_preload('warns')", libraries) == ({"imported": ["warns"], "threads": 1}, "")


def test_a_library_that_starts_a_thread_and_then_cannot_be_imported_is_named(libraries):
    facts, _ = run("try_to_preload('starts_thread_and_raises')", libraries)
    assert facts["starts_threads"] == "starts_thread_and_raises"


def test_a_library_that_starts_a_thread_is_named_even_if_the_part_that_is_wanted_is_not_there(
    libraries,
):
    facts, _ = run("try_to_preload('threads_package.nowhere')", libraries)
    assert facts["starts_threads"] == "threads_package.nowhere"


@pytest.mark.parametrize(
    "name", ["not_installed.part", "raises.part", ".relative", "harmless.part"]
)
def test_a_part_of_a_library_that_is_not_there_is_skipped(libraries, name):
    facts, _ = run(f"try_to_preload({name!r}, 'harmless')", libraries)
    assert facts == {"imported": ["harmless"], "threads": 1}


def test_a_library_that_exits_when_it_is_imported_is_skipped(libraries):
    facts, _ = run("try_to_preload('exits', 'harmless')", libraries)
    assert facts == {"imported": ["harmless"], "threads": 1}


def test_numpy_and_scipy_leave_one_thread():
    facts, _ = run("try_to_preload('numpy', 'scipy')")
    assert facts == {"imported": ["numpy", "scipy"], "threads": 1}


def test_scikit_learn_and_xgboost_answer_their_rehearsal_and_leave_one_thread():
    pytest.importorskip("xgboost")
    facts, errors = run("try_to_preload('sklearn', 'xgboost')")
    assert facts == {"imported": ["sklearn", "xgboost"], "threads": 1}
    assert errors == ""


@pytest.mark.parametrize("allocator", ["default", "pymalloc", "malloc"])
def test_filling_holes_leaves_descriptors_and_stderr_as_they_were(allocator):
    code = """
keep = [bytes(size % 500) for size in range(100_000)]
del keep[::2]
before = sorted(os.listdir("/proc/self/fd"))
heap.fill_holes()
heap.fill_holes()
print("still here", file=sys.stderr)
tell(same=sorted(os.listdir("/proc/self/fd")) == before)
"""
    assert run(code, PYTHONMALLOC=allocator) == ({"same": True}, "still here\n")


def test_filling_holes_uses_up_the_free_blocks():
    code = """
keep = [bytes(size % 500) for size in range(100_000)]
del keep[::2]
before = sum(heap._free_blocks().values())
heap.fill_holes()
tell(before=before, after=sum(heap._free_blocks().values()))
"""
    facts, _ = run(code)
    assert facts["before"] > 30_000
    assert facts["after"] < 5_000
