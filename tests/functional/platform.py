"""What SageMaker's side does with a container, as far as its volume goes: fetch, load, unload.

It holds a directory's lease while it fetches into it or has it loaded, as a platform may that
knows of leases.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manymodels import storage
from manymodels.errors import DirectoryInUse
from tests.functional.harness import Client

HANDLER = """
import numpy as np

def handle(data, context):
    if data is None:
        global weights
        weights = np.load("weights.npy")
        return None
    return [repr(float(weights @ inputs(int(item["body"].decode())))) for item in data]

def inputs(seed):
    return np.random.default_rng(seed).standard_normal(len(weights))
"""
ATTEMPTS = 50


@dataclass
class Model:
    """One of the models in the store: its weights are made from its number."""

    name: str
    number: int
    features: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def weights(self) -> np.ndarray:
        return np.random.default_rng(self.number).standard_normal(self.features)

    def answer(self, seed: int) -> float:
        return float(self.weights() @ np.random.default_rng(seed).standard_normal(self.features))


class Platform:
    """Clients of one server whose models are fetched into a root, and removed by the watchdog."""

    def __init__(self, client: Client, root: Path, models: int, kib: tuple[int, int]) -> None:
        self.client = client
        self.root = root
        rng = random.Random(7)
        self.models = [
            Model(f"model-{number:03}", number, rng.randint(*kib) * 128) for number in range(models)
        ]
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.fullest = 0.0

    def run(self, clients: int, seconds: float) -> None:
        """Have so many clients ask for models, a few of them often and most seldom."""
        until = time.monotonic() + seconds
        weights = [1.0 / (rank + 1) for rank in range(len(self.models))]

        def ask(client: int) -> None:
            rng = random.Random(client)
            while time.monotonic() < until and not self.wrong:
                model = rng.choices(self.models, weights)[0]
                with model.lock:
                    try:
                        self.use(model, rng.randrange(1000))
                    except Exception as error:
                        self.wrong.append(f"{model.name}: {error!r}")

        threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.fullest = max(self.fullest, storage.usage(self.root).share)
            time.sleep(0.01)
        for thread in threads:
            thread.join()

    def use(self, model: Model, seed: int) -> None:
        """Fetch a model if it is not there, load it, ask it, unload it."""
        directory = self.root / model.name / "model"
        for _ in range(ATTEMPTS):
            lease = self.lease(model)
            if lease is None:
                continue
            with lease:
                loaded = self.client.load(model.name, directory, handler="handler:handle")
            if loaded.status in (404, 507):
                self.counts[f"load {loaded.status}"] += 1
                continue
            assert loaded.status == 200, f"load: {loaded.status} {loaded.body!r}"
            self.counts["loads"] += 1
            answer = self.client.invoke(model.name, str(seed), "text/plain")
            assert answer.status == 200, f"invoke: {answer.status} {answer.body!r}"
            # The sum's last bits depend on how many threads add it up.
            expected = model.answer(seed)
            assert math.isclose(float(answer.body), expected, rel_tol=1e-9), answer.body
            assert (directory / "weights.npy").exists(), "removed while it was loaded"
            unloaded = self.client.unload(model.name)
            assert unloaded.status == 200, f"unload: {unloaded.status}"
            return
        raise AssertionError(f"not loaded in {ATTEMPTS} attempts")

    def lease(self, model: Model) -> storage.Lease | None:
        """Have a model's directory, fetched if it is not there; None if not this time."""
        try:
            return storage.share(self.root / model.name, seconds=5)
        except FileNotFoundError:
            self.counts["fetches"] += 1
        except DirectoryInUse:
            self.counts["in use"] += 1
            return None
        try:
            with storage.arriving(self.root, model.name) as arrival:
                directory = arrival.path / "model"
                directory.mkdir()
                (directory / "handler.py").write_text(HANDLER)
                np.save(directory / "weights.npy", model.weights())
                return arrival.place()
        except OSError:
            self.counts["no space"] += 1
            time.sleep(0.05)
            return None
