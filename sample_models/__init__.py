"""Small real models to serve: ``python -m sample_models --out DIR`` trains them all."""

from sample_models.sample import Sample, samples

__all__ = ["Sample", "samples"]
