import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from manymodels.artifacts.own_code import installation, requirements, search_path
from manymodels.artifacts.own_code.requirements_file import read
from manymodels.errors import ModelLoadError
from tests.unit.model_files import imports_restored, package, wheel, write

REQUIREMENTS = "code/requirements.txt"


@pytest.fixture(autouse=True)
def _imports(monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    with imports_restored():
        yield


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model", {"code/inference.py": ""})


@pytest.fixture
def server(tmp_path):
    """Packages that the server has."""
    directory = write(tmp_path / "server", package("servers", "3.1.1"))
    extra = "Provides-Extra: fast\nRequires-Dist: orjson>=1; extra == 'fast'\n"
    absent = "Requires-Dist: no-such-thing>2; extra == 'slow'\nRequires-Dist: nothing-else\n"
    write(directory, package("with_extras", "1.0", requires=extra + absent))
    sys.path.append(str(directory))
    return directory


def vendored(model, *arguments, **options):
    files = package(*arguments, **options)
    write(model, {f"code/lib/{name}": text for name, text in files.items()})


def check(model, text, **options):
    write(model, {REQUIREMENTS: text})
    return requirements.check(model, search_path.extend(model), **options)


def refusal(model, text, **options):
    with pytest.raises(ModelLoadError) as caught:
        check(model, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def needed(tmp_path, text):
    write(tmp_path, {"requirements.txt": text})
    found = read(tmp_path / "requirements.txt").needed
    return [(each.name, str(each.versions), sorted(each.extras)) for each in found]


def test_a_model_without_the_file_needs_nothing_and_parses_nothing(model):
    for name in [name for name in sys.modules if name.endswith("requirements_file")]:
        del sys.modules[name]
    assert requirements.check(model) is None
    assert not any(name.endswith("requirements_file") for name in sys.modules)


def test_the_file_is_in_code_or_at_the_top_level_of_a_model_without(tmp_path, model):
    write(model, {"requirements.txt": "no-such-thing"})
    assert requirements.find(model) is None
    write(model, {REQUIREMENTS: ""})
    assert requirements.find(model) == model / REQUIREMENTS
    flat = write(tmp_path / "flat", {"requirements.txt": "no-such-thing"})
    with pytest.raises(ModelLoadError, match=r"^requirements\.txt needs no-such-thing"):
        requirements.check(flat)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# all\n\n  \nfoo\n", [("foo", "", [])]),
        ("foo>=1,<2  # why", [("foo", "<2,>=1", [])]),
        ("foo [ a, b ] == 1.*", [("foo", "==1.*", ["a", "b"])]),
        ("foo \\\n >= 1 \\\n --hash=sha256:0 \\\n --hash=sha256:1", [("foo", ">=1", [])]),
        ("foo \\\n\nbar", [("foo", "", []), ("bar", "", [])]),
        ("foo; python_version < '3'\nbar; python_version >= '3'", [("bar", "", [])]),
        ("foo; extra == 'test'", []),
        ("--index-url https://x.example\n-i https://x.example\nfoo", [("foo", "", [])]),
        ("--no-binary :all:\n--pre\nfoo", [("foo", "", [])]),
        ("-c constraints.txt\nfoo", [("foo", "", [])]),
        ("\ufefffoo", [("foo", "", [])]),
        ("foo @ https://x.example/foo-1.0.zip", [("foo", "", [])]),
        ("git+https://x.example/a.git@v1#egg=foo", [("foo", "", [])]),
        ("git+https://x.example/group/foo.git@v1", [("foo", "", [])]),
        ("-e git+https://x.example/a.git#egg=foo", [("foo", "", [])]),
        ("--editable=./foo", [("foo", "", [])]),
        ("./wheels/foo_bar-1.0-py3-none-any.whl", [("foo_bar", "", [])]),
        ("https://x.example/foo-bar-1.0.tar.gz", [("foo-bar", "", [])]),
        ("-e .", [(None, "", [])]),
    ],
)  # fmt: skip
def test_what_a_file_asks_for(tmp_path, text, expected):
    assert needed(tmp_path, text) == expected


def test_included_files_are_read_once_from_where_the_including_one_is(tmp_path):
    write(tmp_path, {"more/base.txt": "foo\n-r ../requirements.txt\n--requirement=last.txt"})
    write(tmp_path, {"more/last.txt": "bar", "limits.txt": "foo<2"})
    assert [name for name, *_ in needed(tmp_path, "-rmore/base.txt\n-c limits.txt\nbaz")] == [
        "foo",
        "bar",
        "baz",
    ]
    assert len(read(tmp_path / "requirements.txt").files) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"foo\nfoo bar\n", "requirements.txt, line 2: 'foo bar' is not a requirement: "),
        (b"foo \\\n >= 1\nfoo==\n", "requirements.txt, line 3: 'foo==' is not a requirement: "),
        (b"foo; python_version ~ 1", "requirements.txt, line 1: "),
        (b"-r absent.txt", "absent.txt cannot be read: No such file or directory"),
        (b"\xff\xfefoo", "requirements.txt is not UTF-8: "),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, content, message):
    (tmp_path / "requirements.txt").write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        read(tmp_path / "requirements.txt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"numpy=={np.__version__}\nScikit_Learn>=1",
        "servers<4,>=3.1",
        "servers @ https://x.example/servers.zip",
        "with-extras",
        "with.extras[fast]",
        "./servers-9.9-py3-none-any.whl",
    ],
)
def test_what_the_server_has_satisfies(server, model, text):
    assert check(model, text) is None


def test_all_that_is_missing_or_of_another_version_is_named(server, model):
    text = "servers<2\nno-such-thing>=2\nservers>=3\nservers>4\nwith-extras[slow]\n-e .\nnumpy"
    assert refusal(model, text) == (
        "code/requirements.txt needs servers<2, the server has 3.1.1; "
        "needs no-such-thing>=2, which is not installed; "
        "needs servers>4, the server has 3.1.1; "
        "needs no-such-thing>2, which is not installed; "
        "needs '.', of which the name is not known: name it by #egg=name: "
        "put them into code/lib (pip install --target code/lib -r requirements.txt), or let the "
        "server install them (MANYMODELS_INSTALL_REQUIREMENTS=true)"
    )


def test_what_the_model_brings_satisfies(server, model):
    vendored(model, "own_thing", "1.2")
    vendored(model, "servers", "1.9")
    write(model, {f"code/{name}": text for name, text in package("nearer", "3").items()})
    assert check(model, "own-thing~=1.0\nservers<2\nnearer==3") is None


def test_what_the_model_brings_hides_what_the_server_has(server, model):
    vendored(model, "servers", "1.9")
    assert "needs servers>=3, the model brings 1.9: " in refusal(model, "servers>=3")


def test_of_two_versions_that_pip_left_behind_one_is_enough(model):
    vendored(model, "own", "1.0")
    vendored(model, "own", "2.0")
    assert check(model, "own==2.0") is None
    assert check(model, "own==1.0") is None


def test_a_package_without_metadata_is_taken_as_it_is(model, caplog):
    vendored(model, "unlabelled_thing", "1.0", label=False)
    write(model, {"code/lib/single.py": ""})
    with caplog.at_level(logging.DEBUG):
        assert check(model, "unlabelled-thing==7\nsingle") is None
    assert "unlabelled-thing==7 is taken from the model, of an unknown version" in caplog.text


def test_metadata_without_a_version_is_taken_as_it_is(model):
    write(model, {"code/lib/cut-1.0.dist-info/METADATA": "Name: cut\n"})
    assert check(model, "cut>=3") is None


def test_what_is_imported_already_and_only_brought_in_vain_fails_with_advice(model):
    vendored(model, "orjson", "0.0.1")
    assert refusal(model, "orjson<1") == (
        f"code/requirements.txt needs orjson<1, which the model brings, but {orjson.__version__} "
        "is imported already and cannot be replaced (the server itself runs on it: an image with "
        "that version would have to serve it)"
    )


def test_what_is_brought_in_vain_does_not_matter_where_the_servers_will_do(model):
    vendored(model, "orjson", "0.0.1")
    assert check(model, "orjson>1") is None


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """pip finds its packages here and nowhere else."""
    directory = tmp_path / "wheels"
    wheel(directory, "tiny", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def kept(cache):
    """What is in the cache but the locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_what_is_missing_is_installed_once_behind_the_models_own(model, wheels, tmp_path):
    cache = tmp_path / "deep" / "cache"
    vendored(model, "brought", "1.0")
    installed = check(model, "tiny==1.0\n", install_into=cache)
    assert sys.path[:3] == [str(model / "code"), str(model / "code" / "lib"), str(installed)]
    import tiny

    assert (tiny.__version__, tiny.__file__) == ("1.0", str(installed / "tiny" / "__init__.py"))
    (wheels / "tiny-1.0-py3-none-any.whl").unlink()
    sys.path.remove(str(installed))
    assert check(model, "tiny==1.0\n", install_into=cache) == installed
    assert kept(cache) == [installed.name]


def test_nothing_is_installed_where_nothing_is_missing(model, wheels, tmp_path):
    vendored(model, "tiny", "1.0")
    assert check(model, "tiny", install_into=tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()


def test_an_installation_that_fails_says_pips_last_error_and_leaves_nothing(
    model, wheels, tmp_path
):
    message = refusal(model, "tiny\nno-such-thing==3", install_into=tmp_path / "cache")
    assert message == (
        "installing requirements.txt failed: No matching distribution found for no-such-thing==3"
    )
    assert kept(tmp_path / "cache") == []


def test_another_content_is_another_installation(model, wheels, tmp_path):
    cache = tmp_path / "cache"
    first = check(model, "tiny", install_into=cache)
    with imports_restored():
        sys.path.remove(str(first))
        assert check(model, "tiny>=1", install_into=cache) != first
    write(model, {"code/more.txt": "tiny"})
    sys.path.remove(str(first))
    included = check(model, "-r more.txt", install_into=cache)
    write(model, {"code/more.txt": "tiny<2"})
    sys.path.remove(str(included))
    assert check(model, "-r more.txt", install_into=cache) != included


def test_what_was_installed_in_vain_fails_with_advice(model, wheels, tmp_path):
    wheel(wheels, "orjson", "0.0.1")
    message = refusal(model, "orjson<1", install_into=tmp_path / "cache")
    assert f"but {orjson.__version__} is imported already and cannot be replaced" in message


def test_modules_of_the_model_do_not_get_into_pips_way(model, wheels, tmp_path, monkeypatch):
    write(model, {"code/logging.py": "raise SystemExit(3)", "code/pip/__init__.py": ""})
    monkeypatch.setenv("PYTHONPATH", str(model / "code"))
    assert check(model, "tiny", install_into=tmp_path / "cache") is not None


def test_a_process_that_waited_for_another_takes_what_that_installed(
    model, wheels, tmp_path, monkeypatch
):
    write(model, {REQUIREMENTS: "tiny"})
    path, cache = model / REQUIREMENTS, tmp_path / "cache"
    calls = []
    run_pip = installation._run_pip

    def counted(*arguments):
        calls.append(1)
        run_pip(*arguments)

    def flock_after_another(file, operation):
        """Another process had the lock: by the time it is ours, the work is done."""
        if not calls:
            monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
            installation.install(path, [path], cache, 60)

    monkeypatch.setattr(installation, "_run_pip", counted)
    monkeypatch.setattr(fcntl, "flock", flock_after_another)
    assert installation.install(path, [path], cache, 60).is_dir()
    assert calls == [1]


INSTALLING = """
import sys
from pathlib import Path
from manymodels.artifacts.own_code import installation
path, cache = Path(sys.argv[1]), Path(sys.argv[2])
print(installation.install(path, [path], cache, 60))
"""


def test_two_processes_at_once_install_once(model, wheels, tmp_path):
    write(model, {REQUIREMENTS: "tiny"})
    command = [sys.executable, "-c", INSTALLING, model / REQUIREMENTS, tmp_path / "cache"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (target,) = outputs
    assert kept(tmp_path / "cache") == [Path(target).name]


def test_what_a_killed_process_left_behind_is_removed(model, wheels, tmp_path):
    cache = tmp_path / "cache"
    installed = check(model, "tiny", install_into=cache)
    installed.rename(cache / f".{installed.name}-cut-short")
    sys.path.remove(str(installed))
    assert check(model, "tiny", install_into=cache) == installed
    assert kept(cache) == [installed.name]


def pip_that(monkeypatch, source):
    """Let a Python program stand in for pip."""
    monkeypatch.setattr(installation, "_PIP", ("-c", source))


def test_an_installation_that_takes_too_long_is_ended_with_all_it_started(
    model, tmp_path, monkeypatch
):
    said = tmp_path / "child"
    os.mkfifo(said)
    pip_that(
        monkeypatch,
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        f"open({str(said)!r}, 'w').write(str(child.pid))\n"
        "child.wait()\n",
    )
    children = []

    def time_is_up(process, timeout):
        children.append(os.pidfd_open(int(said.read_text())))
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", time_is_up)
    message = refusal(model, "tiny", install_into=tmp_path / "cache", timeout=2)
    assert message == "installing requirements.txt was not done after 2 s, and was ended"
    assert kept(tmp_path / "cache") == []
    ended = select.poll()
    ended.register(children[0], select.POLLIN)
    assert ended.poll(30_000)
    os.close(children[0])


def test_pip_has_nothing_to_read_and_ends_with_its_parent(model, tmp_path, monkeypatch):
    pip_that(
        monkeypatch,
        "import ctypes, sys\n"
        "got = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(got))\n"
        "sys.exit(f'{sys.stdin.read()!r} {got.value}')\n",
    )
    message = refusal(model, "tiny", install_into=tmp_path / "cache")
    assert message == f"installing requirements.txt failed: '' {int(signal.SIGKILL)}"


def test_a_cache_that_cannot_be_written_is_named(model, tmp_path):
    write(tmp_path, {"file": ""})
    message = refusal(model, "tiny", install_into=tmp_path / "file" / "cache")
    assert "Not a directory (MANYMODELS_REQUIREMENTS_CACHE)" in message


def test_a_cache_of_another_user_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    owner = (tmp_path / "cache").stat().st_uid or 12345
    os.chown(tmp_path / "cache", owner, -1) if os.geteuid() == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    message = refusal(model, "tiny", install_into=tmp_path / "cache")
    assert f"it belongs to the user {owner}" in message
