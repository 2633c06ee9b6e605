"""Sample models of MXNet: ``python -m sample_models.mxnet --out DIR`` trains them.

They are no part of the ordinary build, as MXNet needs an environment of its own: Python 3.10 or
3.11 and ``pip install -e '.[mxnet]'``.
"""
