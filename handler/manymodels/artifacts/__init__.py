"""A model directory becomes an object that predicts."""

from manymodels.artifacts.detection import load
from manymodels.artifacts.model import Model

__all__ = ["Model", "load"]
