import ctypes
import importlib
import importlib.machinery
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from manymodels.artifacts.own_code import loaded_modules, search_path
from tests.unit.model_files import imports_restored, package, write


@pytest.fixture(autouse=True)
def _imports():
    with imports_restored():
        yield


@pytest.fixture
def server(tmp_path):
    """A directory of packages that the server has, on sys.path."""
    directory = tmp_path / "server"
    directory.mkdir()
    sys.path.append(str(directory))
    return directory


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


def vendored(model, *arguments, **options):
    files = package(*arguments, **options)
    return write(model, {f"code/lib/{name}": text for name, text in files.items()})


def test_a_model_without_code_changes_nothing(model):
    before = sys.path[:]
    assert search_path.extend(model) == ()
    assert sys.path == before


def test_code_and_its_library_come_first_and_once(model):
    write(model, {"code/lib/x.py": ""})
    before = sys.path[:]
    search_path.extend(model)
    search_path.extend(model)
    assert sys.path == [str(model / "code"), str(model / "code" / "lib"), *before]


def test_a_path_that_is_there_already_moves_to_the_front(model):
    write(model, {"code/x.py": ""})
    sys.path.append(str(model / "code"))
    search_path.extend(model)
    assert sys.path.count(str(model / "code")) == 1
    assert sys.path[0] == str(model / "code")


def test_a_relative_directory_becomes_absolute(model, monkeypatch):
    write(model, {"code/x.py": ""})
    monkeypatch.chdir(model)
    search_path.extend(Path())
    assert sys.path[0] == os.path.abspath(model / "code")


def test_further_directories_come_behind_the_models_own(model, tmp_path):
    write(model, {"code/x.py": ""})
    write(tmp_path, {"installed/y.py": ""})
    search_path.extend(model)
    search_path.put_first([tmp_path / "installed"], behind=search_path.code_directories(model))
    assert sys.path[:2] == [str(model / "code"), str(tmp_path / "installed")]


def test_a_pure_package_that_is_imported_gives_way_to_the_models_own(server, model):
    write(server, package("toolbox", "1.0"))
    importlib.import_module("toolbox.part")
    vendored(model, "toolbox", "2.0")
    assert search_path.extend(model) == ()
    assert "toolbox.part" not in sys.modules
    assert importlib.import_module("toolbox").__version__ == "2.0"
    assert importlib.import_module("toolbox.part").__file__.startswith(str(model))


def test_a_module_of_the_model_hides_one_of_the_same_name(server, model):
    write(server, {"helpers.py": "whose = 'the server'"})
    importlib.import_module("helpers")
    write(model, {"code/helpers.py": "whose = 'the model'"})
    search_path.extend(model)
    assert importlib.import_module("helpers").whose == "the model"


def test_what_was_built_on_a_package_is_imported_anew_with_it(server, model):
    write(server, {**package("base", "1.0"), "user.py": "from base import __version__, part\n"})
    write(server, {"user_of_user.py": "import user\n", "other.py": ""})
    other = importlib.import_module("other")
    importlib.import_module("user_of_user")
    vendored(model, "base", "2.0")
    search_path.extend(model)
    assert importlib.import_module("user_of_user").user.__version__ == "2.0"
    assert importlib.import_module("other") is other


def test_what_was_remembered_before_holds_with_what_was_imported_since(server, model, monkeypatch):
    monkeypatch.setattr(loaded_modules, "_remembered", {})
    write(server, {**package("base", "1.0"), "user.py": "from base import __version__, part\n"})
    write(server, {"later.py": "import user\n"})
    importlib.import_module("user")
    loaded_modules.remember()
    before = importlib.import_module("later")
    for version in ("2.0", "3.0"):
        own = model / version
        vendored(own, "base", version)
        assert search_path.extend(own) == ()
        assert importlib.import_module("user").__version__ == version
        assert importlib.import_module("later") is not before


def test_what_the_model_has_imported_of_its_own_stays(model):
    vendored(model, "toolbox", "2.0")
    search_path.extend(model)
    mine = importlib.import_module("toolbox")
    assert search_path.extend(model) == ()
    assert importlib.import_module("toolbox") is mine


def test_pythons_own_and_the_servers_modules_are_left_alone(model, caplog):
    names = ["json", "logging", "manymodels", "mms"]
    importlib.import_module("mms")
    before = [sys.modules[name] for name in names]
    write(model, {f"code/{name}.py": "raise SystemExit" for name in names})
    assert search_path.extend(model) == ()
    assert [sys.modules[name] for name in names] == before
    assert not caplog.records


def test_a_native_package_of_another_version_is_kept_and_warned_of(model, caplog):
    vendored(model, "orjson", "0.0.1")
    with caplog.at_level(logging.WARNING):
        (conflict,) = search_path.extend(model)
    assert conflict == ("orjson", "orjson", orjson.__version__, "0.0.1", True)
    assert importlib.import_module("orjson") is orjson
    (record,) = caplog.records
    assert f"the model brings orjson 0.0.1, but {orjson.__version__} is" in record.getMessage()
    assert "the server itself runs on it" in record.getMessage()


def test_a_native_package_of_the_same_version_is_kept_without_a_word(model, caplog):
    vendored(model, "numpy", np.__version__)
    assert search_path.extend(model) == ()
    assert importlib.import_module("numpy") is np
    assert not caplog.records


def test_a_native_package_that_does_not_say_its_version_is_warned_of(model, caplog):
    vendored(model, "orjson", "0.0.1", label=False)
    (conflict,) = search_path.extend(model)
    assert conflict.vendored is None
    assert "brings orjson of an unknown version" in caplog.text


def test_a_directory_of_data_hides_nothing(model):
    write(model, {"code/orjson/data.txt": "", "code/numpy.txt": ""})
    assert search_path.extend(model) == ()


def test_a_library_loaded_by_ctypes_cannot_be_replaced(server, model, caplog):
    write(server, package("booster", "1.0"))
    source = next(Path(orjson.__file__).parent.glob("*.so"))
    (server / "booster" / "lib").mkdir()
    library = shutil.copy(source, server / "booster" / "lib" / "libbooster.so")
    loaded = importlib.import_module("booster")
    ctypes.CDLL(library)
    vendored(model, "booster", "2.0")
    (conflict,) = search_path.extend(model)
    assert conflict == ("booster", "booster", "1.0", "2.0", False)
    assert importlib.import_module("booster") is loaded
    assert "leave booster, and what imports it, out of MANYMODELS_PRELOAD" in caplog.text


def pretend_native(name):
    """Have the process believe that an imported package has an extension module."""
    fast = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(f"{name}._fast", None))
    fast.__file__ = sys.modules[name].__file__.replace(
        "__init__.py", "_fast" + importlib.machinery.EXTENSION_SUFFIXES[0]
    )
    sys.modules[fast.__name__] = fast


def test_what_a_native_package_was_built_on_is_kept_with_it(server, model):
    write(server, package("base", "1.0"))
    write(server, {"pure.py": "import base\n", "native/__init__.py": "from pure import base\n"})
    base = importlib.import_module("base")
    importlib.import_module("native")
    pretend_native("native")
    vendored(model, "base", "2.0")
    (conflict,) = search_path.extend(model)
    assert (conflict.name, conflict.loaded, conflict.vendored) == ("base", "1.0", "2.0")
    assert importlib.import_module("base") is base


def test_the_packages_of_one_distribution_are_kept_together(server, model):
    both = {"face/__init__.py": "", "body/__init__.py": ""}
    label = {"twins-1.0.dist-info/METADATA": "Name: twins\nVersion: 1.0\n"}
    write(server, {**both, **label, "guest/__init__.py": ""})
    face = importlib.import_module("face")
    guest = importlib.import_module("guest")
    importlib.import_module("body")
    pretend_native("body")
    mine = {
        "twins-2.0.dist-info/METADATA": "Name: twins\nVersion: 2.0\n",
        "twins-2.0.dist-info/top_level.txt": "face\nbody\n",
    }
    files = {**both, **mine, "guest/__init__.py": ""}
    write(model, {f"code/lib/{name}": text for name, text in files.items()})
    (conflict,) = search_path.extend(model)
    assert (conflict.distribution, conflict.loaded, conflict.vendored) == ("twins", "1.0", "2.0")
    assert importlib.import_module("face") is face
    assert importlib.import_module("guest") is not guest


def test_of_a_namespace_only_the_package_in_it_is_replaced(server, model):
    write(server, {"space/one/__init__.py": "v = 1", "space/two/__init__.py": "v = 1"})
    one, two = importlib.import_module("space.one"), importlib.import_module("space.two")
    write(model, {"code/lib/space/one/__init__.py": "v = 2", "code/lib/space/new.py": "v = 2"})
    assert search_path.extend(model) == ()
    assert importlib.import_module("space.one").v == 2
    assert importlib.import_module("space.one") is not one
    assert importlib.import_module("space.two") is two
    assert importlib.import_module("space.new").v == 2


FORKING = """
import json, os, sys
import toolbox
from pathlib import Path
from manymodels.artifacts.own_code import search_path
for model in sys.argv[1:]:
    read, write = os.pipe()
    if not os.fork():
        search_path.extend(Path(model))
        import helpers, toolbox
        os.write(write, json.dumps([toolbox.__version__, helpers.whose]).encode())
        os._exit(0)
    print(os.read(read, 1000).decode())
    os.wait()
print(json.dumps([toolbox.__version__]))
"""


def test_models_with_modules_of_the_same_name_work_side_by_side(server, tmp_path):
    write(server, package("toolbox", "1.0"))
    models = []
    for number in (2, 3):
        model = tmp_path / f"model-{number}"
        vendored(model, "toolbox", f"{number}.0")
        write(model, {"code/helpers.py": f"whose = {number}"})
        models.append(str(model))
    path = [str(server), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", FORKING, *models]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in output.stdout.splitlines()]
    assert lines == [["2.0", 2], ["3.0", 3], ["1.0"]]
