"""Model directories on disk: who uses them."""

from manymodels.storage.leases import Holding, Lease, exclude, hold, in_use, share

__all__ = ["Holding", "Lease", "exclude", "hold", "in_use", "share"]
