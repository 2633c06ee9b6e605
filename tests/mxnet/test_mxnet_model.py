import json
import shutil

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

from manymodels import content
from manymodels.artifacts.libraries.mxnet_model import candidates, load_mxnet
from manymodels.errors import BadRequest, ModelLoadError

mx = pytest.importorskip("mxnet")
gluon = mx.gluon

ROWS = load_digits().data
MODULE, GLUON = "digits-mxnet-module", "digits-mxnet-gluon"


def load(directory):
    (files,) = candidates(sorted(directory.iterdir()))
    return load_mxnet(files)


def prefix(directory):
    return str(directory / "digits")


def save(directory, network, params, epoch=0, states=(), shapes=None):
    """Write a checkpoint of a symbol and its arrays."""
    as_arrays = [
        {n: mx.nd.array(v, dtype=v.dtype) for n, v in dict(p).items()} for p in (params, states)
    ]
    mx.model.save_checkpoint(str(directory / "m"), epoch, network, *as_arrays)
    if shapes:
        content = [{"name": name, "shape": shape} for name, shape in shapes.items()]
        (directory / "m-shapes.json").write_text(json.dumps(content))


def dense(name, n_outputs, data=None):
    data = mx.sym.var("data") if data is None else data
    return mx.sym.FullyConnected(data, num_hidden=n_outputs, name=name)


def values(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def params_of(name, n_outputs, n_inputs, seed=0):
    return {
        f"{name}_weight": values(n_outputs, n_inputs, seed=seed),
        f"{name}_bias": values(n_outputs, seed=seed + 1),
    }


@pytest.fixture
def copied(samples, tmp_path):
    """A function that copies a sample's model directory, to change it."""

    def copy(name):
        return shutil.copytree(samples[name].model_dir, tmp_path / name)

    return copy


def module_of(directory, n_rows):
    """A sample's Module as MXNet itself binds it, for so many rows."""
    network, params, states = mx.model.load_checkpoint(prefix(directory), 8)
    module = mx.mod.Module(network, context=mx.cpu())
    module.bind([("data", (n_rows, 64))], [("softmax_label", (n_rows,))], for_training=False)
    module.set_params(params, states)
    return module


# -- real models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 3, 100, len(ROWS)])
def test_a_module_predicts_as_mxnets_own(samples, n_rows):
    directory = samples[MODULE].model_dir
    batches = mx.io.NDArrayIter(ROWS[:n_rows], np.zeros(n_rows), n_rows)
    expected = module_of(directory, n_rows).predict(batches).asnumpy()
    np.testing.assert_allclose(load(directory).predict(ROWS[:n_rows]), expected, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [1, 3, 100, len(ROWS)])
def test_a_gluon_export_predicts_as_gluons_own_import(samples, n_rows):
    directory = samples[GLUON].model_dir
    names = [f"{prefix(directory)}-{rest}" for rest in ("symbol.json", "0008.params")]
    block = gluon.SymbolBlock.imports(names[0], ["data"], names[1])
    expected = block(mx.nd.array(ROWS[:n_rows].reshape(-1, 1, 8, 8))).asnumpy()
    np.testing.assert_allclose(
        load(directory).predict(ROWS[:n_rows]), expected, rtol=1e-5, atol=1e-5
    )


def test_the_samples_have_learned_their_digits(samples):
    for name in (MODULE, GLUON):
        answers = load(samples[name].model_dir).predict(ROWS).argmax(axis=1)
        assert (answers == load_digits().target).mean() > 0.9, name


@pytest.mark.parametrize("name", [MODULE, GLUON])
def test_a_sample_is_answered_from_its_request_to_its_response(samples, name):
    sample = samples[name]
    model = load(sample.model_dir)
    rows = content.decode(sample.body.encode(), sample.content_type, model.columns)
    assert sample.answered_by(content.encode(model.predict(rows), sample.accept))


def test_both_read_csv_and_json(samples):
    csv = "\n".join(",".join(map(str, row)) for row in ROWS[:2])
    as_json = json.dumps({"instances": ROWS[:2].tolist()})
    for name in (MODULE, GLUON):
        model = load(samples[name].model_dir)
        expected = model.predict(ROWS[:2])
        for body, media_type in ((csv, content.CSV), (as_json, content.JSON)):
            rows = content.decode(body.encode(), media_type, model.columns)
            np.testing.assert_array_equal(model.predict(rows), expected)


def test_batches_of_changing_sizes_are_answered_alike(samples):
    for name in (MODULE, GLUON):
        model = load(samples[name].model_dir)
        expected = model.predict(ROWS[:9])
        for start, end in ((0, 1), (1, 6), (6, 9), (2, 3)):
            np.testing.assert_allclose(
                model.predict(ROWS[start:end]), expected[start:end], rtol=1e-5, atol=1e-6
            )


def test_a_description_says_what_was_loaded(samples):
    for name, kind in ((MODULE, "Module"), (GLUON, "SymbolBlock")):
        model = load(samples[name].model_dir)
        assert (model.framework, model.kind) == ("mxnet", kind)
        assert (model.columns.count, model.columns.numbers) == (64, True)
        assert model.origin == {
            "written_by": "mxnet 1.9.1",
            "running": f"mxnet {mx.__version__}",
            "epoch": "8",
        }
        assert isinstance(model.native, gluon.SymbolBlock)


def test_a_softmax_is_a_classifiers_probabilities(samples):
    model = load(samples[MODULE].model_dir)
    np.testing.assert_array_equal(model.classes, np.arange(10))
    np.testing.assert_allclose(model.probabilities(ROWS[:5]).sum(axis=1), np.ones(5), rtol=1e-5)
    np.testing.assert_array_equal(model.probabilities(ROWS[:5]), model.predict(ROWS[:5]))
    np.testing.assert_array_equal(model.labels(ROWS[:3]), [0, 1, 2])


def test_scores_without_a_softmax_are_no_probabilities(samples):
    model = load(samples[GLUON].model_dir)
    assert (model.classes, model.labels, model.probabilities) == (None, None, None)


# -- shapes --------------------------------------------------------------------------------------


def test_without_shapes_the_first_layer_tells_the_width(copied):
    directory = copied(MODULE)
    expected = load(directory).predict(ROWS[:3])
    (directory / "digits-shapes.json").unlink()
    model = load(directory)
    assert (model.columns.count, len(model.classes)) == (64, 10)
    np.testing.assert_array_equal(model.predict(ROWS[:3]), expected)


def test_images_without_shapes_say_what_file_to_add(copied):
    directory = copied(GLUON)
    (directory / "digits-shapes.json").unlink()
    with pytest.raises(ModelLoadError, match=r"takes images .* add digits-shapes\.json"):
        load(directory)


def test_rows_of_another_width_are_the_requests_fault(samples):
    model = load(samples[GLUON].model_dir)
    with pytest.raises(BadRequest, match="takes 64 features, the request has 63"):
        content.decode(b",".join([b"1"] * 63), content.CSV, model.columns)


def test_a_width_that_no_file_tells_is_judged_by_the_network(tmp_path):
    scale = mx.sym.var("scale_weight", shape=(1, 3))
    save(tmp_path, mx.sym.broadcast_mul(mx.sym.var("data"), scale), {"scale_weight": values(1, 3)})
    model = load(tmp_path)
    assert model.columns.count is None
    np.testing.assert_allclose(model.predict(np.ones((2, 3))), np.tile(values(1, 3), (2, 1)))
    with pytest.raises(BadRequest, match=r"^the model does not take these values: [^\n]+$"):
        model.predict(np.ones((2, 4)))
    assert model.predict(np.ones((1, 3))).shape == (1, 3), "it goes on"


def test_sparse_rows_are_taken(samples):
    model = load(samples[MODULE].model_dir)
    np.testing.assert_array_equal(
        model.predict(scipy.sparse.csr_matrix(ROWS[:2])), model.predict(ROWS[:2])
    )


# -- networks of other kinds ---------------------------------------------------------------------


def test_a_regression_drops_its_label(tmp_path):
    save(tmp_path, mx.sym.LinearRegressionOutput(dense("fc", 1)), params_of("fc", 1, 4))
    model, rows = load(tmp_path), values(5, 4, seed=9)
    params = params_of("fc", 1, 4)
    np.testing.assert_allclose(
        model.predict(rows), rows @ params["fc_weight"].T + params["fc_bias"], rtol=1e-5
    )
    assert model.classes is None


def test_a_state_comes_with_the_parameters(tmp_path):
    network = dense("fc", 2, mx.sym.BatchNorm(mx.sym.var("data"), name="norm", fix_gamma=False))
    params = {**params_of("fc", 2, 3), "norm_gamma": values(3), "norm_beta": values(3)}
    states = {"norm_moving_mean": values(3, seed=5), "norm_moving_var": values(3, seed=6) ** 2}
    save(tmp_path, network, params, states=states)
    rows = values(4, 3, seed=9)
    scaled = (rows - states["norm_moving_mean"]) / np.sqrt(states["norm_moving_var"] + 1e-3)
    scaled = scaled * params["norm_gamma"] + params["norm_beta"]
    expected = scaled @ params["fc_weight"].T + params["fc_bias"]
    np.testing.assert_allclose(load(tmp_path).predict(rows), expected, rtol=1e-3, atol=1e-4)


def test_inputs_lie_in_a_row_as_the_shapes_list_them(tmp_path):
    network = dense("a", 2, mx.sym.var("left")) - dense("b", 2, mx.sym.var("right"))
    params = {**params_of("a", 2, 3), **params_of("b", 2, 4, seed=7)}
    save(tmp_path, network, params, shapes={"right": [1, 2, 2], "left": [1, 3]})
    model, rows = load(tmp_path), values(5, 7)
    right, left = rows[:, :4], rows[:, 4:]
    expected = left @ params["a_weight"].T + params["a_bias"]
    expected = expected - (right @ params["b_weight"].T + params["b_bias"])
    assert model.columns.count == 7
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [("data0", "data1"), ("left", "right")])
def test_inputs_without_shapes_are_an_error_that_names_them(tmp_path, names):
    network = dense("a", 2, mx.sym.var(names[0])) + dense("b", 2, mx.sym.var(names[1]))
    save(tmp_path, network, {**params_of("a", 2, 3), **params_of("b", 2, 4)})
    with pytest.raises(ModelLoadError, match=rf"{names[1]}.*m-shapes\.json|no values for"):
        load(tmp_path)


def test_several_outputs_come_side_by_side(tmp_path):
    data = mx.sym.var("data")
    network = mx.sym.Group([dense("a", 2, data), dense("b", 3, data)])
    save(tmp_path, network, {**params_of("a", 2, 4), **params_of("b", 3, 4)})
    assert load(tmp_path).predict(values(5, 4)).shape == (5, 5)


def test_outputs_of_many_dimensions_are_laid_flat(tmp_path):
    network = mx.sym.reshape(dense("a", 6), shape=(-1, 2, 3))
    save(tmp_path, network, params_of("a", 6, 4))
    assert load(tmp_path).predict(values(5, 4)).shape == (5, 6)


def test_a_network_of_one_dimension_answers_a_number_a_row(tmp_path):
    save(tmp_path, mx.sym.sum(dense("a", 6), axis=1), params_of("a", 6, 4))
    assert load(tmp_path).predict(values(5, 4)).shape == (5,)


def test_a_network_that_answers_another_number_of_rows_is_an_error(tmp_path):
    save(tmp_path, mx.sym.reshape(dense("a", 6), shape=(1, -1)), params_of("a", 6, 4))
    model = load(tmp_path)
    assert model.predict(values(1, 4)).shape == (1, 6)
    with pytest.raises(ValueError, match=r"answered shape \(1, 12\) for 2 rows"):
        model.predict(values(2, 4))


def test_a_network_of_half_precision_is_computed_in_full(tmp_path):
    params = {name: value.astype(np.float16) for name, value in params_of("a", 2, 4).items()}
    save(tmp_path, dense("a", 2), params)
    answer = load(tmp_path).predict(values(3, 4))
    widened = {name: value.astype(np.float32) for name, value in params.items()}
    assert answer.dtype == np.float32
    expected = values(3, 4) @ widened["a_weight"].T + widened["a_bias"]
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_a_network_of_double_precision_is_given_double_precision(tmp_path):
    params = {n: v.astype(np.float64) for n, v in params_of("a", 2, 4).items()}
    save(tmp_path, dense("a", 2), params)
    rows = np.random.default_rng(3).normal(size=(3, 4))
    answer = load(tmp_path).predict(rows)
    assert answer.dtype == np.float64
    np.testing.assert_allclose(answer, rows @ params["a_weight"].T + params["a_bias"], rtol=1e-12)


class OfNumpy(gluon.HybridBlock):
    """A network of MXNet's numpy operators."""

    def __init__(self):
        super().__init__()
        self.dense = gluon.nn.Dense(5)

    def hybrid_forward(self, F, x):
        return F.npx.softmax(F.np.tanh(self.dense(x)) + F.np.mean(x, axis=1, keepdims=True))


@pytest.mark.parametrize("kind", [OfNumpy, lambda: gluon.nn.Dense(3)], ids=["numpy", "layers"])
def test_an_export_of_mxnets_numpy_predicts(tmp_path, kind):
    rows = values(3, 4)
    mx.npx.set_np()
    try:
        block = kind()
        block.initialize()
        block.hybridize()
        expected = block(mx.np.array(rows)).asnumpy()
        block.export(str(tmp_path / "m"))
    finally:
        mx.npx.reset_np()
    np.testing.assert_allclose(load(tmp_path).predict(rows), expected, rtol=1e-5, atol=1e-6)


def test_the_latest_epoch_is_served(tmp_path):
    for epoch in (0, 2, 11):
        save(tmp_path, dense("a", 2), params_of("a", 2, 4, seed=epoch), epoch)
    model, rows = load(tmp_path), values(3, 4)
    latest = params_of("a", 2, 4, seed=11)
    assert model.origin["epoch"] == "11"
    np.testing.assert_allclose(
        model.predict(rows), rows @ latest["a_weight"].T + latest["a_bias"], rtol=1e-5
    )


# -- what does not load --------------------------------------------------------------------------


def assert_does_not_load(directory, match):
    with pytest.raises(ModelLoadError, match=match) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 12, 40, 9750, -3])
def test_parameters_cut_short_are_named(copied, kept):
    directory = copied(MODULE)
    path = directory / "digits-0008.params"
    path.write_bytes(path.read_bytes()[:kept])
    assert_does_not_load(directory, r"^digits-0008\.params does not load: .*Invalid NDArray file")


def test_parameters_that_are_something_else_are_named(copied):
    directory = copied(MODULE)
    (directory / "digits-0008.params").write_bytes(b"\x80\x04not parameters" * 100)
    assert_does_not_load(directory, r"^digits-0008\.params does not load: .*Invalid NDArray file")


def test_arrays_without_names_are_no_parameters(copied):
    directory = copied(MODULE)
    mx.nd.save(str(directory / "digits-0008.params"), [mx.nd.ones(3)])
    assert_does_not_load(directory, r"^digits-0008\.params holds arrays without names")


def test_parameters_of_another_network_are_told_from_its_own(copied):
    module, other = copied(MODULE), copied(GLUON)
    shutil.copy(other / "digits-0008.params", module / "digits-0008.params")
    assert_does_not_load(
        module, r"^digits-0008\.params does not fit digits-symbol\.json: it has batchnorm\d+_beta"
    )


def test_missing_parameters_are_named(tmp_path):
    params = params_of("a", 2, 4)
    del params["a_bias"]
    save(tmp_path, dense("a", 2), params)
    assert_does_not_load(tmp_path, r"^m-0000\.params does not fit .* no values for a_bias$")


def test_parameters_of_another_shape_are_named_with_both(tmp_path):
    save(tmp_path, dense("a", 2), params_of("a", 3, 4))
    assert_does_not_load(tmp_path, r"a_weight of shape \(3, 4\), the network \(2, 4\)$")


def test_shapes_of_another_network_are_named(copied):
    directory = copied(MODULE)
    shapes = directory / "digits-shapes.json"
    shapes.write_text('[{"name": "data", "shape": [1, 63]}]')
    assert_does_not_load(directory, r"hidden_weight of shape \(64, 64\), the network \(64, 63\)$")
    shapes.write_text('[{"name": "image", "shape": [1, 64]}]')
    assert_does_not_load(directory, r"^digits-shapes\.json has image, which digits-symbol")


def test_shapes_that_no_layer_takes_are_an_error(copied):
    directory = copied(GLUON)
    (directory / "digits-shapes.json").write_text('[{"name": "data", "shape": [1, 64]}]')
    assert_does_not_load(directory, r"^digits-symbol\.json does not load: ")


def test_an_operator_that_mxnet_does_not_have_is_named(copied):
    directory = copied(MODULE)
    path = directory / "digits-symbol.json"
    path.write_text(path.read_text().replace('"FullyConnected"', '"OfAnotherVersion"'))
    assert_does_not_load(directory, "OfAnotherVersion is not registered")
