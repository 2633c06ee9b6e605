"""Every form of handler that a stock worker runs, and what is said of one that is not there.

Loading imports modules and reads sys.path, so each load happens in a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manymodels.backend import handlers
from manymodels.errors import ModelLoadError
from manymodels.wire import Load

FUNCTION = """
calls = []

def handle(data, context):
    calls.append(data)
    return ["handle", len(calls), data]

def other(data, context):
    return ["other", data]
"""
CLASS = """
class Service:
    def __init__(self):
        self.initialized = None

    def initialize(self, context):
        self.initialized = context.system_properties["model_dir"]

    def handle(self, data, context):
        return ["class", self.initialized, data]
"""
LIFELESS_CLASS = """
class Service:
    def handle(self, data, context):
        return ["lifeless", data]
"""


def in_fork(action: Callable[[], Any]) -> Any:
    """Run an action in a forked child; return its result, or ``(exception's name, message)``."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                result = action()
            except BaseException as error:
                result = type(error).__name__, str(error), traceback.format_exc()
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(result, stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        raw = stream.read()
    os.waitpid(pid, 0)
    return pickle.loads(raw)


def load(directory: Path, handler: str, inherited: str = "", **fields: Any) -> handlers.Handler:
    """Load a model as a model process does, in this process."""
    base = [entry for entry in sys.path if entry]
    sys.path[:] = handlers.search_path(handler, str(directory), inherited, base)
    os.chdir(directory)
    request = Load("m", str(directory), 1, handler, None, "io")
    return handlers.load(request._replace(**fields))


def answer(directory: Path, handler: str, inherited: str = "") -> Any:
    """What a handler answers to one request, or the exception of its load."""

    def call() -> Any:
        loaded = load(directory, handler, inherited)
        return loaded.entry_point([{"body": b"x"}], loaded.context)

    return in_fork(call)


def failure(directory: Path, handler: str) -> tuple[str, str]:
    """The name and message of the exception that a load raises."""
    name, message, _ = in_fork(lambda: load(directory, handler) and None)
    return name, message


@pytest.fixture
def model(tmp_path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


# -- where modules are looked for --------------------------------------------------------


@pytest.fixture
def places(tmp_path) -> Path:
    for name in ("model/code", "lib", "base", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def search(places: Path, handler: str, inherited: str = "") -> list[str]:
    base = [str(places / "base")]
    found = handlers.search_path(handler, str(places / "model"), inherited, base)
    return [os.path.relpath(entry, places) for entry in found]


@pytest.mark.parametrize("handler", ["service.py", "code/service.py", "../model/service.py"])
def test_in_safe_mode_nothing_of_the_models_directory_is_looked_through(places, handler):
    (places / "link").symlink_to(places / "model" / "code")
    (places / "model" / "out").symlink_to(places / "elsewhere")
    inherited = os.pathsep.join(
        str(places / name) for name in ("lib", "link", "model", "model/code", "model/out")
    )
    base = [str(places / name) for name in ("base", "model/code")]
    found = handlers.search_path(handler, str(places / "model"), inherited, base, safe=True)
    assert [os.path.relpath(entry, places) for entry in found] == ["lib", "base"]


def test_outside_of_a_directory_is_what_neither_lies_in_it_nor_leads_there(places, monkeypatch):
    monkeypatch.chdir(places / "model")
    (places / "link").symlink_to(places / "model" / "code")
    (places / "models").mkdir()
    inside = ["", "code", str(places / "model"), str(places / "link"), "../model/missing"]
    outside = [str(places), str(places / "models"), "../lib", str(places / "missing.zip")]
    assert handlers.outside([*inside, *outside], str(places / "model")) == outside
    assert handlers.outside(outside, "/") == []


@pytest.mark.parametrize("handler", ["own.py:handle", "own", "builtins:print", "own.py"])
def test_a_handler_that_may_not_be_run_is_refused_with_the_way_out(model, handler):
    (model / "own.py").write_text("raise SystemExit('imported')")
    request = Load("m", str(model), 1, handler, None, "io")
    with pytest.raises(handlers.HandlerRefused, match="only") as refused:
        handlers.load(request, ("manymodels.service:handle",))
    assert isinstance(refused.value, ModelLoadError)
    for expected in (repr(handler), "manymodels.service:handle", "SAGEMAKER_HANDLER"):
        assert expected in str(refused.value)


def test_an_operators_handler_that_is_not_there_is_told_where_it_is_not_looked_for(model):
    (model / "own.py").write_text("raise SystemExit('imported')")
    request = Load("m", str(model), 1, "own.py:handle", None, "io")
    base = list(sys.path)

    def load_it() -> None:
        sys.path[:] = handlers.search_path("own.py:handle", str(model), "", base, safe=True)
        handlers.load(request, ("own.py:handle",))

    name, message, _ = in_fork(load_it)
    assert name == "ModelLoadError"
    assert "not from the model's directory" in message


@pytest.mark.parametrize("handler", ["service.py:handle", "service:handle", "service", ""])
def test_a_handler_without_a_directory_is_looked_for_in_the_model_and_then_where_all_is(
    places, handler
):
    assert search(places, handler) == ["model", "base"]


@pytest.mark.parametrize("handler", ["code/h.py:handle", "./code/h.py", "code/h"])
def test_the_directory_of_a_relative_path_comes_first(places, handler):
    assert search(places, handler) == ["model/code", "model", "base"]


def test_the_directory_of_an_absolute_path_comes_first(places):
    assert search(places, f"{places}/elsewhere/h.py:handle") == ["elsewhere", "model", "base"]


def test_the_inherited_path_comes_before_the_model_without_what_is_no_directory(places):
    inherited = f"{places}/lib:{places}/model/service.py::{places}/nowhere:{places}/lib"
    assert search(places, "h.py", inherited) == ["lib", "model", "base"]


def test_a_directory_is_on_the_path_once(places):
    inherited = f"{places}/base:{places}/model/../model"
    assert search(places, "./h.py", inherited) == ["model", "base"]


# -- the forms of a handler --------------------------------------------------------------


@pytest.mark.parametrize("handler", ["h.py:handle", "h:handle", "h.py", "h", "h.py:"])
def test_a_function_of_a_module_in_the_model(model, handler):
    (model / "h.py").write_text(FUNCTION)
    assert answer(model, handler) == ["handle", 2, [{"body": b"x"}]]


@pytest.mark.parametrize("handler", ["h.py:other", "h:other"])
def test_the_function_that_is_named_is_the_one_that_is_called(model, handler):
    (model / "h.py").write_text(FUNCTION)
    assert answer(model, handler) == ["other", [{"body": b"x"}]]


@pytest.mark.parametrize("suffix", ["", ":handle", ":other"])
def test_a_path_below_the_model(model, suffix):
    (model / "code").mkdir()
    (model / "code" / "h.py").write_text(FUNCTION)
    assert answer(model, f"code/h.py{suffix}")[0] == (suffix[1:] or "handle")
    assert answer(model, f"./code/h.py{suffix}")[0] == (suffix[1:] or "handle")


@pytest.mark.parametrize("suffix", ["", ":handle", ":other"])
def test_an_absolute_path_outside_the_model(tmp_path, model, suffix):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "model_handler.py").write_text(FUNCTION)
    handler = f"{tmp_path}/app/model_handler.py{suffix}"
    assert answer(model, handler)[0] == (suffix[1:] or "handle")


def test_the_directory_of_the_path_wins_over_a_namesake_in_the_model(tmp_path, model):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "h.py").write_text("def handle(data, context): return ['app']")
    (model / "h.py").write_text("def handle(data, context): return ['model']")
    assert answer(model, f"{tmp_path}/app/h.py:handle") == ["app"]
    assert answer(model, "h.py:handle") == ["model"]


def test_a_module_on_the_inherited_path(tmp_path, model):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "inherited_handler.py").write_text(FUNCTION)
    assert answer(model, "inherited_handler:handle", str(tmp_path / "lib"))[0] == "handle"


def test_a_dotted_module_of_a_package(model):
    (model / "pack").mkdir()
    (model / "pack" / "__init__.py").touch()
    (model / "pack" / "h.py").write_text(FUNCTION)
    assert answer(model, "pack.h:handle")[0] == "handle"


def test_a_handlers_own_imports_and_files_are_found_in_the_model(model):
    (model / "helper.py").write_text("VALUE = 5")
    (model / "data.txt").write_text("7")
    (model / "h.py").write_text(
        "import helper\ndef handle(data, context): return [helper.VALUE, open('data.txt').read()]"
    )
    assert answer(model, "h.py:handle") == [5, "7"]


def test_a_function_is_called_without_data_once_to_load(model):
    (model / "h.py").write_text(FUNCTION)

    def calls() -> Any:
        load(model, "h.py:handle")
        return sys.modules["h"].calls

    assert in_fork(calls) == [None]


@pytest.mark.parametrize("handler", ["h.py:handle", "h:handle", "h.py", "h.py:anything"])
def test_a_class_with_initialize_and_handle(model, handler):
    (model / "h.py").write_text(CLASS)
    assert answer(model, handler) == ["class", str(model), [{"body": b"x"}]]


def test_a_class_without_initialize(model):
    (model / "h.py").write_text(LIFELESS_CLASS)
    assert answer(model, "h.py") == ["lifeless", [{"body": b"x"}]]


def test_a_class_that_the_module_only_imports_does_not_count(model):
    (model / "base.py").write_text("class Base:\n    def handle(self, data, context): return 1")
    (model / "h.py").write_text("from base import Base\n" + LIFELESS_CLASS)
    assert answer(model, "h.py")[0] == "lifeless"


# -- what fails, and how -----------------------------------------------------------------


def test_two_classes_are_an_error_that_names_both(model):
    (model / "h.py").write_text(CLASS + LIFELESS_CLASS.replace("Service", "Second"))
    name, message = failure(model, "h.py:handle")
    assert name == "ModelLoadError"
    assert "Second, Service" in message
    assert "'handle'" in message


@pytest.mark.parametrize("source", ["", "class Service: pass", "class S:\n    handle = 3"])
def test_a_module_with_neither_function_nor_fitting_class_is_an_error(model, source):
    (model / "h.py").write_text(source)
    name, message = failure(model, "h.py:predict")
    assert name == "ModelLoadError"
    assert "h has no function 'predict'" in message


@pytest.mark.parametrize("handler", ["nowhere.py:handle", "nowhere", "/no/such/nowhere.py:handle"])
def test_a_module_that_is_nowhere_is_an_error_that_names_it_and_where_it_was_looked_for(
    model, handler
):
    name, message = failure(model, handler)
    assert name == "ModelLoadError"
    assert "no module 'nowhere'" in message
    assert str(model) in message


def test_a_module_that_its_package_does_not_have_is_an_error_that_names_it(model):
    (model / "pack").mkdir()
    (model / "pack" / "__init__.py").touch()
    name, message = failure(model, "pack.nowhere:handle")
    assert name == "ModelLoadError"
    assert "no module 'pack.nowhere'" in message


def test_a_module_that_fails_to_import_another_is_that_error(model):
    (model / "h.py").write_text("import not_installed_anywhere")
    name, message = failure(model, "h.py:handle")
    assert name == "ModuleNotFoundError"
    assert "not_installed_anywhere" in message


def test_a_module_with_a_syntax_error_is_that_error(model):
    (model / "h.py").write_text("def handle(:")
    name, message = failure(model, "h.py:handle")
    assert name == "SyntaxError"
    assert "h.py" in message


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("ValueError('no weights')", "ValueError"),
        ("MemoryError()", "MemoryError"),
        ("SystemExit(3)", "SystemExit"),
    ],
)
@pytest.mark.parametrize(
    "source",
    [
        "raise {}",
        "def handle(data, context): raise {}",
        "class S:\n def __init__(self): raise {}\n def handle(self, d, c): pass",
        "class S:\n def initialize(self, c): raise {}\n def handle(self, d, c): pass",
    ],
)
def test_what_a_handler_raises_while_loading_comes_through(model, error, name, source):
    (model / "h.py").write_text(source.format(error))
    assert failure(model, "h.py:handle")[0] == name


# -- the context and the manifest --------------------------------------------------------


def context_of(directory: Path, **fields: Any) -> dict[str, Any]:
    """What a handler sees of its context."""
    (directory / "h.py").write_text("def handle(data, context): pass")

    def look() -> Any:
        context = load(directory, "h.py:handle", **fields).context
        return {
            "type": f"{type(context).__module__}.{type(context).__name__}",
            "model_name": context.model_name,
            "manifest": context.manifest,
            "metrics": type(context.metrics).__name__,
            **context.system_properties,
        }

    return in_fork(look)


def test_a_handler_gets_the_context_of_a_stock_worker(model):
    import mms

    assert context_of(model, model_name="n", batch_size=4, gpu_id=1) == {
        "type": "mms.context.Context",
        "model_name": "n",
        "manifest": None,
        "metrics": "MetricsStore",
        "model_dir": str(model),
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": mms.__version__,
    }


def test_the_context_is_there_while_the_handler_loads(model):
    (model / "h.py").write_text(
        "def handle(data, context):\n"
        "    if data is None:\n"
        "        context.metrics.add_counter('loads', 1)\n"
        "        handle.seen = context.model_name\n"
        "    return [handle.seen]"
    )
    assert answer(model, "h.py:handle") == ["m"]


def test_the_manifest_is_handed_to_the_context(model):
    manifest = {"model": {"handler": "h.py:handle"}, "createdBy": "modèle"}
    (model / "MAR-INF").mkdir()
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    assert context_of(model)["manifest"] == manifest


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"{'single': 1}"])
def test_a_manifest_that_is_not_json_is_an_error_that_names_it(model, raw):
    (model / "MAR-INF").mkdir()
    (model / "MAR-INF" / "MANIFEST.json").write_bytes(raw)
    (model / "h.py").write_text(FUNCTION)
    name, message = failure(model, "h.py:handle")
    assert name == "ModelLoadError"
    assert "MAR-INF/MANIFEST.json is not JSON" in message


def test_a_file_called_mar_inf_is_no_manifest(model):
    (model / "MAR-INF").write_text("not a directory")
    assert context_of(model)["manifest"] is None


LEGACY = """
from mms.model_service.mxnet_model_service import SingleNodeService

class Service(SingleNodeService):
    def __init__(self, model_name, model_dir, manifest, gpu=None):
        self.said = manifest["Model"]["Description"]
    def initialize(self, context):
        self.said += " " + context.model_name
    def handle(self, data, context):
        return [self.said, data]
"""
MXNET = "class {0}: pass\n"


@pytest.mark.parametrize("handler", ["legacy_service.py", "legacy_service"])
def test_an_archive_of_the_legacy_format_is_loaded_by_its_service_class(tmp_path, model, handler):
    # The stock base class imports MXNet, of which this test's service uses nothing.
    (tmp_path / "lib" / "mxnet").mkdir(parents=True)
    (tmp_path / "lib" / "mxnet" / "__init__.py").touch()
    for name, member in (("io", "DataBatch"), ("ndarray", "array"), ("image", "imread")):
        (tmp_path / "lib" / "mxnet" / f"{name}.py").write_text(MXNET.format(member))
    (model / "MANIFEST.json").write_text('{"Model": {"Description": "legacy"}}')
    (model / "legacy_service.py").write_text(LEGACY)
    assert answer(model, handler, str(tmp_path / "lib")) == ["legacy m", [{"body": b"x"}]]


def test_a_new_manifest_beside_a_legacy_one_wins(model):
    (model / "MAR-INF").mkdir()
    (model / "MAR-INF" / "MANIFEST.json").write_text("{}")
    (model / "MANIFEST.json").write_text("{}")
    (model / "h.py").write_text(FUNCTION)
    assert answer(model, "h.py:handle")[0] == "handle"
