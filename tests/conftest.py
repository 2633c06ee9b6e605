"""What all tests share."""

from hypothesis import settings

# Machines that run the tests are shared: a slow example is no failure, and none is random.
settings.register_profile("manymodels", deadline=None, derandomize=True)
settings.load_profile("manymodels")
