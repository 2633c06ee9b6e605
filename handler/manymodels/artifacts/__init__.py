"""A model directory becomes an object that predicts."""

from manymodels.artifacts.adoption import adopt
from manymodels.artifacts.description import ModelDescription, describe
from manymodels.artifacts.detection import load
from manymodels.artifacts.model import Model

__all__ = ["Model", "ModelDescription", "adopt", "describe", "load"]
