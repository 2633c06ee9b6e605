import functools
import types
from pathlib import Path

import pytest
from sagemaker_inference.transformer import Transformer

from manymodels.artifacts.own_code.user_functions import PARAMETERS, UserFunctions
from manymodels.errors import ModelLoadError

CONTEXT = object()
ARGUMENTS = {
    name: [f"<{parameter}>" for parameter in parameters] for name, parameters in PARAMETERS.items()
}


def functions(source="", **attributes):
    module = types.ModuleType("inference")
    exec(compile(source, "inference.py", "exec"), vars(module))
    vars(module).update(attributes)
    return UserFunctions(module, Path("inference.py"))


def call(found, name):
    return found.call(name, *ARGUMENTS[name], context=CONTEXT)


def toolkit_call(function, name):
    """What the toolkit calls the function with; its TypeError if it cannot."""
    transformer = Transformer()
    transformer._context = CONTEXT
    return transformer._run_handler_function(function, *ARGUMENTS[name])


def returning(parameters):
    """A function of these parameters that returns all it has got, by position."""
    scope = {}
    exec(f"def function({parameters}): return tuple(locals().values())", scope)
    return scope["function"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_is_given_what_it_takes(name):
    plain = ", ".join(PARAMETERS[name])
    assert call(functions(**{name: returning(plain)}), name) == tuple(ARGUMENTS[name])
    with_context = call(functions(**{name: returning(f"{plain}, ctx")}), name)
    assert with_context == (*ARGUMENTS[name], CONTEXT)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("model_fn", "model_dir, strict=True"),
        ("model_fn", "model_dir, context=None"),
        ("model_fn", "*args"),
        ("model_fn", "*args, **kwargs"),
        ("predict_fn", "data, *rest"),
        ("predict_fn", "data, model, *rest"),
        ("predict_fn", "data, model=None"),
        ("predict_fn", "data, model=None, context=None"),
        ("predict_fn", "*args, **kwargs"),
        ("input_fn", "data, /, content_type"),
        ("output_fn", "prediction, *, accept=1"),
        ("output_fn", "prediction, accept, **rest"),
        ("output_fn", "prediction, accept, *, context"),
        ("input_fn", "data, content_type, context=None, strict=False"),
        ("input_fn", "data, content_type, strict=False, deep=False"),
        ("transform_fn", "*args, **kwargs"),
        ("transform_fn", "model, data"),
        ("predict_fn", "data"),
        ("predict_fn", "data, model, context, more"),
        ("model_fn", ""),
    ],
)
def test_where_the_toolkit_can_call_a_function_so_do_we(name, parameters):
    function = returning(parameters)
    try:
        expected = toolkit_call(function, name)
    except TypeError:
        return
    assert call(functions(**{name: function}), name) == expected


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("output_fn", "prediction, accept, **rest", ("<prediction>", "<accept>", {})),
        ("output_fn", "prediction, accept, *, context", ("<prediction>", "<accept>", CONTEXT)),
        ("output_fn", "prediction, accept, *, context=0", ("<prediction>", "<accept>", CONTEXT)),
        ("output_fn", "prediction, accept, *, deep=0", ("<prediction>", "<accept>", 0)),
        (
            "input_fn",
            "data, content_type, context=None, strict=False",
            ("<data>", "<content_type>", CONTEXT, False),
        ),
        (
            "input_fn",
            "data, content_type, strict=False, deep=False",
            ("<data>", "<content_type>", False, False),
        ),
        (
            "predict_fn",
            "data, model, context, deep=False",
            ("<data>", "<model>", CONTEXT, False),
        ),
        ("transform_fn", "*args, **kwargs", (tuple(ARGUMENTS["transform_fn"]), {})),
    ],
)
def test_where_the_toolkit_cannot_sense_prevails(name, parameters, expected):
    function = returning(parameters)
    with pytest.raises(TypeError):
        toolkit_call(function, name)
    assert call(functions(**{name: function}), name) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def predict_fn(data): ...",
            "inference.py, line 1: predict_fn takes (data), but is called with (data, model), or "
            "with (data, model, context)",
        ),
        ("def model_fn(): ...", "model_fn takes (), but is called with (model_dir)"),
        ("\ndef input_fn(a, b, c, d): ...", "inference.py, line 2: input_fn takes (a, b, c, d), "),
        ("def output_fn(prediction, *, accept): ...", "output_fn takes (prediction, *, accept),"),
        ("async def predict_fn(data, model): ...", "predict_fn is asynchronous"),
        ("async def predict_fn(data, model): yield", "predict_fn is asynchronous"),
        ("input_fn = {}", "inference.py: input_fn is a dict, not a function"),
        (
            "def transform_fn(m, d, c, a): ...\ndef input_fn(d, c): ...",
            "inference.py defines transform_fn and input_fn: ",
        ),
        (
            "def transform_fn(m, d, c, a): ...\npredict_fn = output_fn = lambda a, b: a",
            "inference.py defines transform_fn and predict_fn, output_fn: ",
        ),
    ],
)
def test_a_function_that_could_not_be_called_fails_the_load(source, message):
    with pytest.raises(ModelLoadError) as caught:
        functions(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_asynchronous_object_is_refused_as_a_function_is():
    class Predictor:
        async def __call__(self, data, model): ...

    for predict_fn in (Predictor(), functools.partial(Predictor().__call__)):
        with pytest.raises(ModelLoadError, match="asynchronous"):
            functions(predict_fn=predict_fn)


def test_objects_and_partial_functions_are_called():
    class Predictor:
        def __call__(self, data, model):
            return data, model

    for predict_fn in (Predictor(), functools.partial(lambda x, data, model: (data, model), 1)):
        assert call(functions(predict_fn=predict_fn), "predict_fn") == ("<data>", "<model>")


def test_a_wrapped_function_is_judged_by_what_it_wraps():
    def wrapped(data, model, context): ...

    @functools.wraps(wrapped)
    def wrapper(*args):
        return args

    assert call(functions(predict_fn=wrapper), "predict_fn") == ("<data>", "<model>", CONTEXT)


def test_a_function_that_tells_no_parameters_is_given_the_plain_ones():
    assert call(functions(predict_fn=max), "predict_fn") == max("<data>", "<model>")


def test_functions_may_be_left_out_imported_or_none():
    found = functions("from os.path import join as predict_fn\ninput_fn = None")
    assert found.names == ("predict_fn",)
    assert "predict_fn" in found
    assert "input_fn" not in found
    assert call(found, "predict_fn") == "<data>/<model>"


def test_transform_goes_with_a_model_function():
    source = "def model_fn(d): ...\ndef transform_fn(m, d, c, a): ...\ninput_fn = None"
    assert functions(source).names == ("model_fn", "transform_fn")


def test_a_module_without_any_is_warned_of(caplog):
    assert functions("def predict(data, model): ...").names == ()
    assert "inference.py defines none of model_fn, input_fn" in caplog.text


def test_what_a_function_raises_passes():
    with pytest.raises(KeyError, match="row"):
        call(functions("def predict_fn(data, model): raise KeyError('row')"), "predict_fn")
