"""What replaces MMS's Python worker: a zygote that forks one process a model.

``home()`` is the directory to name in MODEL_SERVER_HOME; the frontend executes
``mms/model_service_worker.py`` under it, which is the launcher.
"""

from pathlib import Path


def home() -> Path:
    """Return the directory that stands in for MMS's own home."""
    return Path(__file__).resolve().parent / "home"
