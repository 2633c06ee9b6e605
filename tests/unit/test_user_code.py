import importlib
import logging
import pickle
import sys

import pytest

from manymodels.artifacts.own_code import search_path, user_code
from manymodels.artifacts.own_code.user_code import find_program, has_code, import_program
from manymodels.errors import ModelLoadError
from tests.unit.model_files import imports_restored, write


@pytest.fixture(autouse=True)
def _imports():
    with imports_restored():
        yield


def imported(model_dir, program="inference.py", **options):
    """The user's module, imported as the handler service does it."""
    search_path.extend(model_dir)
    return import_program(find_program(model_dir, program, **options))


def functions(model_dir, program="inference.py"):
    search_path.extend(model_dir)
    return user_code.load_functions(find_program(model_dir, program))


@pytest.mark.parametrize(
    ("program", "file", "name"),
    [
        ("inference.py", "inference.py", "inference"),
        ("inference", "inference.py", "inference"),
        ("serve_it.py", "serve_it.py", "serve_it"),
        ("src/inference.py", "src/inference.py", "inference"),
        ("src/inference", "src/inference.py", "inference"),
        ("pack.inference", "pack/inference.py", "pack.inference"),
        ("pack", "pack/__init__.py", "pack"),
    ],
)
@pytest.mark.parametrize("place", ["code", "."])
def test_the_program_is_found_and_imported_under_its_own_name(tmp_path, program, file, name, place):
    write(tmp_path / place, {"pack/__init__.py": "", "pack/other.py": ""})
    write(tmp_path / place, {file: "def model_fn(model_dir):\n    return 'mine'\n"})
    found = functions(tmp_path, program)
    assert found.path == tmp_path / place / file
    assert found.call("model_fn", "there", context=None) == "mine"
    assert sys.modules[name].__file__ == str(tmp_path / place / file)


def test_code_goes_before_the_top_level_and_that_before_the_submitted_directory(tmp_path):
    submitted = write(tmp_path / "submitted", {"inference.py": "where = 'submitted'"})
    model = tmp_path / "model"
    model.mkdir()
    assert find_program(model) is None
    for place, files in (
        ("submitted", {}),
        ("top", {"inference.py": "where = 'top'"}),
        ("code", {"code/inference.py": "where = 'code'"}),
    ):
        write(model, files)
        assert imported(model, submit_directory=submitted).where == place


def test_code_without_the_program_is_warned_of_by_the_names_that_are_there(tmp_path, caplog):
    write(tmp_path, {"code/helpers.py": "", "code/infer.py": ""})
    with caplog.at_level(logging.WARNING):
        assert find_program(tmp_path) is None
    assert "holds helpers.py, infer.py but not inference.py (SAGEMAKER_PROGRAM)" in caplog.text


def test_code_beside_a_program_at_the_top_level_is_no_news(tmp_path, caplog):
    write(tmp_path, {"code/helpers.py": "x = 1", "inference.py": "from helpers import x"})
    assert imported(tmp_path).x == 1
    assert not caplog.records


def test_helpers_beside_the_program_and_vendored_packages_are_imported(tmp_path):
    write(
        tmp_path,
        {
            "code/src/inference.py": "import helpers, vendored, common\nfound = helpers.found",
            "code/src/helpers.py": "found = 1",
            "code/lib/vendored.py": "",
            "code/common.py": "",
        },
    )
    module = imported(tmp_path, "src/inference.py")
    assert (module.__name__, module.found) == ("inference", 1)
    assert sys.path[0] == str(tmp_path / "code" / "src")


def test_an_installed_module_of_that_name_does_not_win(tmp_path):
    write(tmp_path, {"site/inference/__init__.py": "", "site/inference/part.py": ""})
    sys.path.insert(0, str(tmp_path / "site"))
    importlib.import_module("inference.part")
    write(tmp_path, {"inference.py": "where = 'mine'"})
    assert imported(tmp_path).where == "mine"
    assert importlib.import_module("inference").where == "mine"
    assert "inference.part" not in sys.modules


def test_relative_imports_work_in_a_package(tmp_path):
    write(
        tmp_path,
        {
            "code/pack/__init__.py": "",
            "code/pack/helpers.py": "x = 1",
            "code/pack/inference.py": "from .helpers import x\nfrom pack import helpers",
        },
    )
    assert imported(tmp_path, "pack.inference").x == 1
    assert sys.modules["pack"].inference.x == 1


def test_what_the_program_defines_is_found_by_pickles(tmp_path):
    write(tmp_path, {"code/inference.py": "class Scaler:\n    by = 3\n"})
    module = imported(tmp_path)
    assert pickle.loads(pickle.dumps(module.Scaler())).by == 3


def test_a_new_import_of_the_program_is_of_the_new_file(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, {"code/inference.py": f"which = {name!r}"})
        assert imported(tmp_path / name).which == name


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"inference.py": "x = 1\ndef f(:\n"}, "inference.py, line 2: SyntaxError: invalid syntax"),
        (
            {"inference.py": "import helpers", "helpers.py": "\n\nx = = 1\n"},
            "helpers.py, line 3: SyntaxError: invalid syntax",
        ),
        (
            {"inference.py": "import os\nimport no_such_thing\n"},
            "inference.py, line 2: no module 'no_such_thing': it is neither installed here nor in "
            "the model's code/lib",
        ),
        (
            {"inference.py": "import helpers", "helpers.py": "import json\njson.loads('[')"},
            "helpers.py, line 2: JSONDecodeError: Expecting value: line 1 column 2 (char 1)",
        ),
        (
            {"inference.py": "from lib.tool import x", "lib/tool.py": "raise OSError('1\\n2')"},
            "lib/tool.py, line 1: OSError: 1",
        ),
        ({"inference.py": "raise ValueError"}, "inference.py, line 1: ValueError"),
        (
            {"inference.py": "import sys\nsys.exit(0)\n"},
            "inference.py, line 2: it ends the process by sys.exit() when it is imported",
        ),
    ],
)
def test_a_program_that_does_not_import_says_where_and_why(tmp_path, files, message):
    write(tmp_path / "code", files)
    with pytest.raises(ModelLoadError) as caught:
        imported(tmp_path)
    assert str(caught.value) == message
    assert caught.value.__cause__ is not None
    assert "inference" not in sys.modules


def test_running_out_of_memory_passes(tmp_path):
    write(tmp_path, {"code/inference.py": "raise MemoryError('no room')"})
    with pytest.raises(MemoryError, match="no room"):
        imported(tmp_path)


def test_a_program_must_not_replace_a_module_of_pythons_own(tmp_path):
    write(tmp_path, {"code/json.py": ""})
    before = sys.modules["json"]
    with pytest.raises(ModelLoadError, match=r"json\.py has the name of a module of Python's"):
        imported(tmp_path, "json.py")
    assert sys.modules["json"] is before


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({"model.json": ""}, False),
        ({"code/requirements.txt": "", "code/notes.md": ""}, False),
        ({"helpers.py": ""}, False),
        ({"code/helpers.py": ""}, True),
        ({"code/lib/deep/er/x.py": ""}, True),
        ({"code/lib/fast.cpython-311-x86_64-linux-gnu.so": ""}, True),
        ({"inference.py": ""}, True),
        ({"code/requirements.txt": "", "inference.py": ""}, True),
    ],
)
def test_whether_a_model_brings_code(tmp_path, files, has):
    write(tmp_path, files)
    assert has_code(tmp_path) is has
