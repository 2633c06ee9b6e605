"""What is known of MXNet's files without MXNet. tests/mxnet has what needs it."""

import json
import sys

import pytest

from manymodels.artifacts.libraries.mxnet_files import Graph, read_shapes
from manymodels.artifacts.libraries.mxnet_model import MxnetFiles, candidates, load_mxnet
from manymodels.errors import ModelLoadError


def node(op, name, inputs=(), **attributes):
    found = {"op": op, "name": name, "inputs": [[each, 0, 0] for each in inputs]}
    return {**found, "attrs": attributes} if attributes else found


CLASSIFIER = [
    node("null", "data"),
    node("_div_scalar", "scaled", [0], scalar="16.0"),
    node("null", "fc_weight"),
    node("null", "fc_bias"),
    node("FullyConnected", "fc", [1, 2, 3], num_hidden="3"),
    node("null", "softmax_label"),
    node("SoftmaxOutput", "softmax", [4, 5]),
]
IMAGES = [
    node("null", "data"),
    node("null", "conv_weight"),
    node("Convolution", "conv", [0, 1]),
]


def symbol(nodes, **fields):
    content = {"nodes": nodes, "arg_nodes": [], "heads": [[len(nodes) - 1, 0, 0]], **fields}
    return json.dumps(content)


def write(directory, **files):
    """Write files named with underscores for dashes and dots: a_symbol_json is a-symbol.json."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        (directory / f"{stem.replace('_', '-')}.{suffix}").write_text(content)
    return sorted(directory.iterdir())


def graph(tmp_path, nodes, **fields):
    path = tmp_path / "m-symbol.json"
    path.write_text(symbol(nodes, **fields))
    return Graph(path)


def test_files_belong_together_by_their_prefix(tmp_path):
    files = write(
        tmp_path,
        a_symbol_json=symbol(CLASSIFIER),
        a_0003_params="",
        a_shapes_json="[]",
        b_c_symbol_json=symbol(CLASSIFIER),
        b_c_0000_params="",
        synset_txt="zero",
        model_json='{"learner": {}}',
    )
    found = candidates(files)
    assert [(each.prefix, each.epoch) for each in found] == [("a", 3), ("b-c", 0)]
    assert found[0] == MxnetFiles(
        tmp_path / "a-symbol.json", tmp_path / "a-0003.params", tmp_path / "a-shapes.json"
    )
    assert found[1].shapes is None


def test_of_several_epochs_the_latest_counts_by_number(tmp_path):
    files = write(
        tmp_path,
        a_symbol_json=symbol(CLASSIFIER),
        a_0000_params="",
        a_0002_params="",
        a_10000_params="",
        a_9999_params="",
        other_99999_params="",
    )
    assert [each.params.name for each in candidates(files)] == ["a-10000.params"]


@pytest.mark.parametrize(
    "content",
    ['{"nodes": []}', '["nodes", "heads"]', '{"nodes": 1, "heads": 1}', '{"nodes":', "\x00"],
)
def test_another_file_of_that_name_is_no_network(tmp_path, content):
    assert candidates(write(tmp_path, a_symbol_json=content)) == []


def test_a_network_cut_short_beside_its_parameters_fails_as_what_it_is(tmp_path):
    (files,) = candidates(write(tmp_path, a_symbol_json=symbol(CLASSIFIER)[:200], a_0000_params=""))
    with pytest.raises(ModelLoadError, match=r"^a-symbol\.json is not a network .* cut short$"):
        load_mxnet(files)


def test_a_network_without_parameters_says_what_is_missing(tmp_path):
    (files,) = candidates(write(tmp_path, a_symbol_json=symbol(CLASSIFIER)))
    assert (files.params, files.epoch) == (None, -1)
    with pytest.raises(ModelLoadError, match=r"^a-symbol\.json .* a-0000\.params$"):
        load_mxnet(files)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("null", "data"), {"op": "FullyConnected", "name": "fc"}],
        [node("null", "data"), node("FullyConnected", "fc", [7])],
        [node("null", "data"), node("FullyConnected", "fc", [-1])],
        [node("null", "data"), {"op": "FullyConnected", "name": "fc", "inputs": [0]}],
        ["data"],
    ],
)
def test_nodes_that_are_none_are_no_network(tmp_path, nodes):
    with pytest.raises(ModelLoadError, match="not a network"):
        graph(tmp_path, nodes)


def test_a_graph_says_what_it_takes_and_answers(tmp_path):
    found = graph(tmp_path, CLASSIFIER, attrs={"mxnet_version": ["int", 10503]})
    assert found.variables == ["data", "fc_weight", "fc_bias", "softmax_label"]
    assert found.labels == {"softmax_label"}
    assert found.ends_in_softmax
    assert not found.is_gluon
    assert found.written_by == "mxnet 1.5.3"


def test_two_outputs_are_no_softmax(tmp_path):
    assert not graph(tmp_path, CLASSIFIER, heads=[[6, 0, 0], [4, 0, 0]]).ends_in_softmax


def test_gluon_is_known_by_the_settings_of_its_parameters(tmp_path):
    settings = {"__dtype__": "0", "__lr_mult__": "1.0", "__wd_mult__": "1.0"}
    exported = [CLASSIFIER[0], node("null", "w", **settings), node("FullyConnected", "f", [0, 1])]
    assert graph(tmp_path, exported).is_gluon
    assert graph(tmp_path, exported).written_by is None


def test_the_first_layer_tells_the_width_of_a_row(tmp_path):
    found = graph(tmp_path, CLASSIFIER)
    assert found.input_shape("data", {"fc_weight": (3, 12)}) == (12,)
    assert found.input_shape("data", {}) is None


def test_a_shape_in_the_graph_counts_if_it_is_whole(tmp_path):
    declared = [node("null", "data", __shape__="(0, 3, 8, 8)"), *IMAGES[1:]]
    assert graph(tmp_path, declared).input_shape("data", {}) == (3, 8, 8)


@pytest.mark.parametrize("shape", ["(0, 3, 0, 0)", "(0,)", "None", "(1, 3, -1, 8)"])
def test_images_of_unknown_size_need_a_file_of_shapes(tmp_path, shape):
    open_ended = [node("null", "data", __shape__=shape), *IMAGES[1:]]
    with pytest.raises(ModelLoadError, match=r'add m-shapes\.json with \[\{"name": "data"'):
        graph(tmp_path, open_ended).input_shape("data", {})


def test_shapes_are_read_without_the_batch_in_their_order(tmp_path):
    path = tmp_path / "m-shapes.json"
    path.write_text('[{"shape": [1, 3, 8], "name": "b"}, {"shape": [5], "name": "a"}]')
    assert list(read_shapes(path).items()) == [("b", (3, 8)), ("a", ())]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"name": "data", "shape": [1, 3]}',
        '[{"name": "data"}]',
        '[{"name": "data", "shape": []}]',
        '[{"name": "data", "shape": [1, 0]}]',
        '[{"name": "data", "shape": [1, "3"]}]',
        '[{"name": 1, "shape": [1, 3]}]',
    ],
)
def test_other_shapes_say_how_they_should_be(tmp_path, content):
    path = tmp_path / "m-shapes.json"
    path.write_text(content)
    with pytest.raises(ModelLoadError, match=r'^m-shapes\.json .*\[\{"name": "data", "shape": \['):
        read_shapes(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"needs MXNet, .* pip install 'manymodels\[mxnet\]', on Python 3\.10 or 3\.11$"),
        ("raise AttributeError('no numpy.bool')", r"numpy \d.*, but with 1\.23\.5: pip install"),
        (
            "raise OSError('libquadmath.so.0: cannot open shared object file')",
            r"libquadmath\.so\.0: .*apt-get install libgomp1 libquadmath0$",
        ),
    ],
)
def test_an_environment_without_a_working_mxnet_says_what_to_install(
    tmp_path, monkeypatch, source, message
):
    if source is None:
        monkeypatch.setitem(sys.modules, "mxnet", None)
    else:
        (tmp_path / "mxnet").mkdir()
        (tmp_path / "mxnet" / "__init__.py").write_text(source)
        monkeypatch.delitem(sys.modules, "mxnet", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "model"
    (files,) = candidates(write(model, a_symbol_json=symbol(CLASSIFIER), a_0000_params=""))
    with pytest.raises(ModelLoadError, match=message):
        load_mxnet(files)
