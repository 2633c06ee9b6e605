"""The code that a model brings: found, imported, and called as sagemaker-inference does."""
