"""Thousands of models in one container, behind SageMaker's multi-model contract."""

__version__ = "0.1.0"
