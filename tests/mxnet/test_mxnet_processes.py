"""What needs a process of its own: forks, and running out of memory."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

mx = pytest.importorskip("mxnet")

MODULE, GLUON = "digits-mxnet-module", "digits-mxnet-gluon"
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith("MXNET_")}
START = """
import os, sys
from pathlib import Path
import numpy as np
from manymodels import content
from manymodels.artifacts.libraries.mxnet_model import candidates, load_mxnet

def load(directory):
    (files,) = candidates(sorted(Path(directory).iterdir()))
    return load_mxnet(files)

def threads():
    return len(os.listdir("/proc/self/task"))
"""


def run(source, *arguments, **environment):
    """Run Python code in a new process; return what it printed, a JSON value a line."""
    done = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(source), *map(str, arguments)],
        env={**INHERITED, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("environment", [{}, {"MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"}])
def test_children_that_were_forked_before_mxnet_came_load_and_predict(samples, environment):
    answers = run(
        """
        import sklearn.ensemble, pandas, scipy.sparse
        for directory in sys.argv[1:]:
            child = os.fork()
            if child == 0:
                assert "mxnet" not in sys.modules
                model = load(directory)
                print(model.predict(np.ones((2, 64))).shape[1], flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        assert "mxnet" not in sys.modules
        """,
        *(samples[name].model_dir for name in (MODULE, GLUON, MODULE)),
        **environment,
    )
    assert answers == [10, 10, 10]


def test_a_network_computes_without_threads_of_its_own(samples):
    script = "load(sys.argv[1]).predict(np.ones((2, 64))); print(threads())"
    directory = samples[MODULE].model_dir
    assert run(script, directory) == [1]
    (chosen,) = run(script, directory, MXNET_ENGINE_TYPE="ThreadedEnginePerDevice")
    assert chosen > 1, "what the environment says counts"


def test_no_memory_is_a_memory_error_and_the_network_goes_on(tmp_path):
    network = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=400_000, name="wide")
    params = {"wide_weight": mx.nd.ones((400_000, 16)), "wide_bias": mx.nd.ones((400_000,))}
    mx.model.save_checkpoint(str(tmp_path / "wide"), 0, network, params, {})
    answers = run(
        """
        import json, resource
        from manymodels.artifacts.libraries.mxnet_library import import_mxnet

        def limited(mebibytes, function, *arguments):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            unlimited = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20, unlimited[1]))
            try:
                return function(*arguments)
            except MemoryError as error:
                print(json.dumps(str(error)))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, unlimited)

        import_mxnet().nd.ones((1,)).asnumpy()
        limited(10, load, sys.argv[1])
        model = load(sys.argv[1])
        limited(300, model.predict, np.ones((1000, 16)))
        print(model.predict(np.ones((1, 16))).shape[1])
        """,
        tmp_path,
    )
    assert answers == ["Failed to allocate CPU Memory"] * 2 + [400_000]
