"""``python -m sample_models.demo``: every sample model in one server, from its start to its end.

It builds the models, starts ``serve``, loads each model over HTTP and compares its answer with
the library's own, shows what failures look like, unloads, stops the server and looks whether
anything is left of it. The exit status is 0 only if all of that was as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NoReturn

import psutil
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sample_models.build import TRAININGS, build
from sample_models.sample import Sample, samples

BUILD_DIRECTORY = Path("build/sample_models")
PORTS = range(18080, 32767)
"""The frontend takes no port from 32767 up."""
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_SECONDS = 5.0
PREDICTIONS = 9
STOCK_MB = 111
"""Private memory of a model behind stock Multi Model Server; `make bench` measures it."""
_MB = 1_000_000
_SETTINGS = ("SAGEMAKER_", "MANYMODELS_", "SM_", "MMS_", "MODEL_SERVER_")


class DemoError(Exception):
    """The demo cannot go on."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes

    def error(self) -> str:
        """Return what the JSON error in the body says: its type and its message."""
        try:
            fields = json.loads(self.body)
            return f"{fields['type']}: {fields['message']}"
        except (ValueError, KeyError, TypeError):
            return repr(self.body[:200])


@dataclass(frozen=True)
class Row:
    """What the demo saw of one model."""

    sample: Sample
    load_ms: float
    predict_ms: float
    answer: str
    right: bool


class Server:
    """A running ``serve``, and HTTP to it on one connection that is kept."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "serve.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_SETTINGS)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "manymodels.cli", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=self._log.open("wb"),
            stderr=subprocess.STDOUT,
            env={
                **inherited,
                "TMPDIR": str(directory),
                "SAGEMAKER_MULTI_MODEL": "true",
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
            },
            start_new_session=True,
        )
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def wait_until_ready(self) -> float:
        """Return the seconds until ``serve`` said that it serves.

        Raises:
            DemoError: it ended, or took too long.
        """
        started = time.monotonic()
        while f"serving on port {self.port}," not in self.log():
            if self._process.poll() is not None:
                raise DemoError(
                    f"serve ended with status {self._process.returncode}:\n{self.log()}"
                )
            if time.monotonic() - started > START_SECONDS:
                raise DemoError(f"serve is not ready after {START_SECONDS:.0f} s:\n{self.log()}")
            time.sleep(0.02)
        return time.monotonic() - started

    def request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; an error answer closes the connection, the next request opens it."""
        content = None if body is None else body.encode()
        self._http.request(method, path, content, dict(headers or {}))
        response = self._http.getresponse()
        return Answer(response.status, response.read())

    def load(self, name: str, model_dir: Path) -> Answer:
        body = json.dumps({"model_name": name, "url": str(model_dir.resolve())})
        return self.request("POST", "/models", body, {"Content-Type": "application/json"})

    def invoke(self, name: str, body: str, content_type: str, accept: str = "*/*") -> Answer:
        headers = {"Content-Type": content_type, "Accept": accept}
        return self.request("POST", f"/models/{name}/invoke", body, headers)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def log_line(self, text: str) -> str:
        """Return the log's line with this text from there on, or nothing if none comes."""
        deadline = time.monotonic() + LOG_SECONDS
        while time.monotonic() < deadline:
            for line in self.log().splitlines():
                if text in line:
                    return line[line.index(text) :]
            time.sleep(0.02)
        return ""

    def family(self) -> list[psutil.Process]:
        """Return ``serve`` and everything that it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            serve = psutil.Process(self._process.pid)
            return [serve, *serve.children(recursive=True)]
        return []

    def part(self, command: str) -> psutil.Process:
        """Return the process whose command line has this word.

        Raises:
            DemoError: there is none.
        """
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if command in process.cmdline():
                    return process
        raise DemoError(f"serve has no process {command}")

    def model_pids(self) -> set[int]:
        """Return the model processes: the children of the zygote."""
        zygote = self.part("manymodels.backend.zygote")
        return {child.pid for child in zygote.children() if child.status() != "zombie"}

    def stop(self) -> int:
        """Send SIGTERM and return the exit status.

        Raises:
            DemoError: it has not ended in time.
        """
        self._http.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"serve runs {STOP_SECONDS:.0f} s after SIGTERM") from None

    def kill(self) -> None:
        """End what still runs, however the demo went."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(STOP_SECONDS)


class Demo:
    """The steps, and what went wrong in them."""

    def __init__(self, console: Console, server: Server, directory: Path) -> None:
        self._console = console
        self._server = server
        self._directory = directory
        self._pids: dict[str, int] = {}
        self.wrong: list[str] = []

    def run(self, built: Sequence[Sample]) -> None:
        """Show everything; what is not as it should be goes to ``wrong``."""
        seconds = self._server.wait_until_ready()
        self._say(f"serve is ready on port {self._server.port} after {seconds:.1f} s")
        rows = self._load_all(built)
        self._show(rows)
        self._show_failed_loads(built[0])
        self._show_bad_requests(built[0])
        self._show_list(built)
        self._unload_all(built)
        self._stop()

    def _load_all(self, built: Sequence[Sample]) -> list[Row]:
        rows = []
        with progress_bar(self._console) as progress:
            task = progress.add_task("loading", total=len(built))
            for sample in built:
                progress.update(task, description=sample.name)
                rows.append(self._load(sample))
                progress.advance(task)
            progress.update(task, description="loaded")
        return rows

    def _load(self, sample: Sample) -> Row:
        before = self._server.model_pids()
        started = time.perf_counter()
        loaded = self._server.load(sample.name, sample.model_dir)
        load_ms = 1000 * (time.perf_counter() - started)
        new = self._server.model_pids() - before
        self._check(loaded.status == 200, f"loading {sample.name} was answered by {loaded}")
        self._check(len(new) == 1, f"loading {sample.name} made {len(new)} processes, not one")
        self._pids.update((sample.name, pid) for pid in new)
        times, answer = [], Answer(0, b"")
        for _ in range(PREDICTIONS):
            started = time.perf_counter()
            answer = self._server.invoke(
                sample.name, sample.body, sample.content_type, sample.accept
            )
            times.append(1000 * (time.perf_counter() - started))
        right = answer.status == 200 and _answered(sample, answer)
        self._check(right, f"{sample.name} answered {answer}, expected {sample.expected}")
        return Row(sample, load_ms, median(times), _shown(sample, answer), right)

    def _show(self, rows: Sequence[Row]) -> None:
        private = {name: _private_mb(pid) for name, pid in self._pids.items()}
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
        table.add_column("model", no_wrap=True)
        table.add_column("framework", no_wrap=True, min_width=12)
        for title in ("load\nms", "predict\nms", "private\nMB"):
            table.add_column(title, justify="right", no_wrap=True, min_width=7)
        table.add_column("as ex-\npected", justify="center", no_wrap=True, min_width=6)
        table.add_column("answer", no_wrap=True, max_width=34)
        for row in rows:
            table.add_row(
                row.sample.name,
                row.sample.framework,
                f"{row.load_ms:.1f}",
                f"{row.predict_ms:.2f}",
                f"{private.get(row.sample.name, float('nan')):.1f}",
                self._mark(row.right),
                escape(row.answer),
            )
        self._console.print(table)
        total = sum(private.values())
        each, stock = total / len(rows), STOCK_MB * len(rows)
        self._say(
            f"{len(rows)} models have {total:.0f} MB of their own, {each:.1f} MB each. Stock Multi "
            f"Model Server\ntakes about {STOCK_MB} MB each, {stock:,} MB for as many "
            "(README.md; `make bench` measures it)."
        )
        frontend = _private_mb(self._server.part("com.amazonaws.ml.mms.ModelServer").pid)
        everything = _proportional_mb(self._server.family())
        self._say(f"The whole server takes {everything:.0f} MB, its JVM {frontend:.0f} MB of them.")

    def _show_failed_loads(self, sample: Sample) -> None:
        self._head("Loads that fail", "the status and the reason, and no model afterwards")
        empty = self._directory / "empty"
        empty.mkdir()
        corrupt = self._directory / "corrupt"
        corrupt.mkdir()
        whole = next(sample.model_dir.glob("*.joblib")).read_bytes()
        (corrupt / "model.joblib").write_bytes(whole[: len(whole) // 2])
        for name in ("empty", "corrupt"):
            answer = self._server.load(name, self._directory / name)
            reason = self._server.log_line(f"model {name} failed to load (")
            afterwards = self._server.request("GET", f"/models/{name}").status
            right = (answer.status, afterwards) == (500, 404) and bool(reason)
            self._result(f"POST /models of {name}", answer, right)
            self._say(f"  log: {reason}", style="dim")
            self._say(f"  GET /models/{name} is {afterwards}", style="dim")
            self._check(right, f"load of {name}: {answer}, then {afterwards}, log: {reason!r}")
        answer = self._server.load("missing", self._directory / "missing")
        self._result("POST /models of a directory that is not there", answer, answer.status == 404)

    def _show_bad_requests(self, sample: Sample) -> None:
        self._head("Bad requests", f"a JSON error each, from {sample.name}")
        for title, body, content_type, status in (
            ("a wrong number of features", "1,2,3\n", "text/csv", 400),
            ("not a number", ",".join(["two", *["1"] * 29]) + "\n", "text/csv", 400),
            ("a type that is not read", "1,2,3", "image/png", 415),
        ):
            answer = self._server.invoke(sample.name, body, content_type)
            self._result(title, answer, answer.status == status)
        answer = self._server.invoke(sample.name, sample.body, sample.content_type)
        self._check(answer.status == 200, f"after bad requests a good one gets {answer}")

    def _show_list(self, built: Sequence[Sample]) -> None:
        listed = json.loads(self._server.request("GET", "/models").body).get("models", [])
        names = [model["modelName"] for model in listed]
        right = names == sorted(sample.name for sample in built)
        self._head("GET /models", f"{len(names)} models {self._mark(right)}")
        self._check(right, f"the list has {names}")

    def _unload_all(self, built: Sequence[Sample]) -> None:
        times = []
        for sample in built:
            started = time.perf_counter()
            unloaded = self._server.request("DELETE", f"/models/{sample.name}").status
            times.append(1000 * (time.perf_counter() - started))
            afterwards = self._server.request("GET", f"/models/{sample.name}").status
            right = (unloaded, afterwards) == (200, 404)
            self._check(right, f"unloading {sample.name}: {unloaded}, then {afterwards}")
        left = _eventually_empty(self._server.model_pids)
        right = not left
        text = f"{len(times)} models, {median(times):.1f} ms each; no process of theirs is left"
        self._head("DELETE", f"{text} {self._mark(right)}")
        self._check(right, f"model processes are left: {left}")

    def _stop(self) -> None:
        family = self._server.family()
        started = time.monotonic()
        status = self._server.stop()
        seconds = time.monotonic() - started
        left = _eventually_empty(lambda: {p.pid for p in family if p.is_running()})
        files = [path.name for path in self._directory.glob("manymodels-*")]
        right = status == 0 and not left and not files
        text = f"serve ended with status {status} after {seconds:.1f} s; nothing is left of it"
        self._head("SIGTERM", f"{text} {self._mark(right)}")
        self._check(right, f"status {status}, processes left {left}, files left {files}")

    # -- what it looks like --------------------------------------------------------------

    def _check(self, right: bool, wrong: str) -> None:
        if not right:
            self.wrong.append(wrong)

    def _result(self, title: str, answer: Answer, right: bool) -> None:
        self._say(f"{self._mark(right)} {title}: {answer.status} {escape(answer.error())}")
        self._check(right, f"{title}: {answer}")

    def _mark(self, right: bool) -> str:
        plain = not self._console.encoding.lower().startswith("utf")
        if right:
            return "[green]ok[/green]" if plain else "[green]✓[/green]"
        return "[bold red]WRONG[/bold red]" if plain else "[bold red]✗[/bold red]"

    def _head(self, title: str, text: str) -> None:
        self._say(f"\n[bold]{title}[/bold]: {text}")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, soft_wrap=True)


def free_port() -> int:
    """Return a port that the frontend takes and nobody has.

    Raises:
        DemoError: there is none.
    """
    first = os.getpid() % len(PORTS)
    for port in (*PORTS[first:], *PORTS[:first]):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoError(f"no port from {PORTS[0]} to {PORTS[-1]} is free")


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _answered(sample: Sample, answer: Answer) -> bool:
    try:
        return sample.answered_by(answer.body)
    except ValueError:
        return False


def _shown(sample: Sample, answer: Answer) -> str:
    """Return an answer in a few words."""
    if answer.status != 200:
        return f"{answer.status} {answer.error()}"
    try:
        values = sample.parse(answer.body)
    except ValueError:
        return repr(answer.body[:40])
    return ", ".join(_short(value) for value in values)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_short(part) for part in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _private_mb(pid: int) -> float:
    """Return the memory that only this process has; what a fork shares is not in it."""
    return float(psutil.Process(pid).memory_full_info().uss) / _MB


def _proportional_mb(processes: Sequence[psutil.Process]) -> float:
    """Return the memory of processes that share pages, each page counted once."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss / _MB
    return total


def _eventually_empty(look: Callable[[], set[int]], seconds: float = 5.0) -> set[int]:
    """Return what is still there after a few seconds: nothing, it is hoped."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[Server]:
    server = Server(directory)
    try:
        yield server
    finally:
        server.kill()


def _build(console: Console, directory: Path) -> list[Sample]:
    shutil.rmtree(directory, ignore_errors=True)
    with progress_bar(console) as progress:
        task = progress.add_task("training", total=len(TRAININGS))
        build(directory, lambda name: progress.update(task, advance=1, description=name))
        progress.update(task, description="trained")
    return samples(directory)


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_models.demo", description="Serve every sample model."
    )
    parser.add_argument("--models", type=Path, default=BUILD_DIRECTORY, help="where to build them")
    models = parser.parse_args(arguments).models
    console = Console(width=None if sys.stdout.isatty() else 120)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        built = _build(console, models)
        with tempfile.TemporaryDirectory(prefix="manymodels-demo-") as name:
            directory = Path(name)
            with _running(directory) as server:
                demo = Demo(console, server, directory)
                demo.run(built)
    except KeyboardInterrupt:
        console.print("interrupted; the server was stopped")
        return 130
    except (DemoError, OSError, http.client.HTTPException, psutil.Error) as error:
        console.print(f"[bold red]given up[/bold red]: {escape(str(error))}")
        return 1
    for wrong in demo.wrong:
        console.print(f"[bold red]wrong[/bold red]: {escape(wrong)}", soft_wrap=True)
    console.print("\n[bold green]All as expected.[/bold green]" if not demo.wrong else "")
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
