"""Model directories on disk: who uses them, what they take, and which must go."""

from manymodels.storage.arrival import Arrival, arriving
from manymodels.storage.check import InUse, check
from manymodels.storage.leases import Holding, Lease, exclude, hold, in_use, share
from manymodels.storage.volume import Size, Usage, size_of, usage
from manymodels.storage.watchdog import Eviction, Watch, Watchdog

__all__ = [
    "Arrival",
    "Eviction",
    "Holding",
    "InUse",
    "Lease",
    "Size",
    "Usage",
    "Watch",
    "Watchdog",
    "arriving",
    "check",
    "exclude",
    "hold",
    "in_use",
    "share",
    "size_of",
    "usage",
]
