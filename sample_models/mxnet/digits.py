"""Digits: a Module checkpoint and a Gluon export, each with its shapes and its labels.

The Module takes a row of 64 and answers probabilities, the Gluon network takes an image of 8 x 8
and answers a score for each digit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from sample_models.build import Workspace
from sample_models.sample import CSV, JSON, Sample, csv_body, json_body

MODULE, GLUON = "digits-mxnet-module", "digits-mxnet-gluon"
BATCH, EPOCHS = 100, 8
DARKEST = 16.0

Floats = NDArray[np.float32]


def train(workspace: Workspace) -> None:
    train_module(workspace)
    train_gluon(workspace)


def train_module(workspace: Workspace) -> None:
    model_dir = workspace.new_model(MODULE)
    rows, digits = _digits()
    _seed()
    module = mx.mod.Module(_symbol(), context=mx.cpu())
    batches = mx.io.NDArrayIter(rows, digits, BATCH, last_batch_handle="discard")
    module.fit(
        batches, num_epoch=EPOCHS, optimizer="adam", initializer=mx.init.Xavier(), kvstore=None
    )
    module.save_checkpoint(str(model_dir / "digits"), EPOCHS)
    _write_shapes_and_labels(model_dir, (1, 64))
    request = rows[:3]
    answer = module.predict(mx.io.NDArrayIter(request, digits[:3], batch_size=3))
    workspace.write(
        Sample(
            name=MODULE,
            framework="mxnet",
            description="MXNet Module, the probability of each digit",
            content_type=CSV,
            accept=JSON,
            body=csv_body(request),
            expected=answer.asnumpy().tolist(),
            tolerance=1e-5,
            model_dir=model_dir,
        )
    )


def train_gluon(workspace: Workspace) -> None:
    model_dir = workspace.new_model(GLUON)
    rows, digits = _digits()
    images = rows.reshape(-1, 1, 8, 8)
    _seed()
    network = _network()
    trainer = gluon.Trainer(network.collect_params(), "adam", {"learning_rate": 0.01}, kvstore=None)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for start in range(0, EPOCHS * len(images), BATCH):
        chosen = np.arange(start, start + BATCH) % len(images)
        with autograd.record():
            lost = loss(network(mx.nd.array(images[chosen])), mx.nd.array(digits[chosen]))
        lost.backward()
        trainer.step(BATCH)
    network.export(str(model_dir / "digits"), epoch=EPOCHS)
    _write_shapes_and_labels(model_dir, (1, 1, 8, 8))
    request = rows[:4]
    answer = network(mx.nd.array(request.reshape(-1, 1, 8, 8)))
    workspace.write(
        Sample(
            name=GLUON,
            framework="mxnet",
            description="MXNet Gluon, a score for each digit",
            content_type=JSON,
            accept=JSON,
            body=json_body(request, "instances"),
            expected=answer.asnumpy().tolist(),
            tolerance=1e-4,
            model_dir=model_dir,
        )
    )


def _symbol() -> Any:
    layer = mx.sym.Variable("data") / DARKEST
    layer = mx.sym.FullyConnected(layer, num_hidden=64, name="hidden")
    layer = mx.sym.Activation(layer, act_type="relu", name="relu")
    layer = mx.sym.FullyConnected(layer, num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(layer, name="softmax")


def _network() -> Any:
    network = gluon.nn.HybridSequential()
    network.add(
        gluon.nn.BatchNorm(),
        gluon.nn.Conv2D(8, kernel_size=3, activation="relu"),
        gluon.nn.MaxPool2D(),
        gluon.nn.Flatten(),
        gluon.nn.Dense(10),
    )
    network.initialize(mx.init.Xavier())
    network.hybridize()
    return network


def _digits() -> tuple[Floats, Floats]:
    """Return images as rows of 64, from 0 to 16, and their digits."""
    rows, digits = load_digits(return_X_y=True)
    return rows.astype(np.float32), digits.astype(np.float32)


def _seed() -> None:
    mx.random.seed(0)
    np.random.seed(0)  # some of MXNet's initializers draw from numpy's own


def _write_shapes_and_labels(model_dir: Path, shape: tuple[int, ...]) -> None:
    shapes = [{"name": "data", "shape": list(shape)}]
    (model_dir / "digits-shapes.json").write_text(json.dumps(shapes) + "\n", encoding="utf-8")
    (model_dir / "synset.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
