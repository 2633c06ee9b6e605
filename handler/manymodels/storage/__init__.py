"""Model directories on disk: who uses them, what they take, and which must go."""

from manymodels.storage.check import InUse, check
from manymodels.storage.leases import Holding, Lease, exclude, hold, in_use, share
from manymodels.storage.volume import Size, Usage, size_of, usage
from manymodels.storage.watchdog import Eviction, Watch, Watchdog

__all__ = [
    "Eviction",
    "Holding",
    "InUse",
    "Lease",
    "Size",
    "Usage",
    "Watch",
    "Watchdog",
    "check",
    "exclude",
    "hold",
    "in_use",
    "share",
    "size_of",
    "usage",
]
