"""``manymodels status``: finding a server, asking it, looking at its processes, the table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.backend import observing, status
from manymodels.backend.observing import MemoryObserver, memory_of, observe
from manymodels.backend.snapshot import BadSnapshot, Counters, Snapshot, Volume, Worker
from manymodels.backend.status import NoStatus, ask, find, run
from manymodels.backend.status_table import table
from manymodels.errors import ManyModelsError
from manymodels.storage import exclude, share
from tests.unit.snapshots import MIB, NOW, model, snapshot, snapshots, tally

steady = hypothesis_settings(deadline=None, derandomize=True)
VOLUME = Volume("/opt/ml/models", "evict", 0.95, 0.9, 0.953, 19 << 30, 20 << 30, 0.12, 7, 900 * MIB)


@contextmanager
def listening(path: Path, *answers: bytes, close: bool = True) -> Iterator[None]:
    """A server that sends an answer to each that connects, and then closes, or else waits.

    An empty answer is for one who only looks whether anybody listens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            kept.append(connection)
            with suppress(OSError):  # the asker may have heard enough
                connection.sendall(answer)
            if close:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(10)
    finally:
        for connection in kept:
            connection.close()
        listener.close()


def dead_socket(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))


def encoded(one: Snapshot) -> bytes:
    return one.to_json().encode()


# -- JSON --------------------------------------------------------------------------------


@steady
@given(snapshots)
def test_a_snapshot_comes_back_from_json_as_it_was(one):
    text = one.to_json()
    assert text.isascii()
    assert Snapshot.from_json(text) == one


def test_json_has_the_number_of_requests_for_those_who_read_it():
    one = snapshot(model("m", Worker(1, "idle", tally(0.1, 0.2, errors={404: 1}))))
    fields = json.loads(one.to_json())["models"][0]
    assert fields["tally"]["requests"] == fields["workers"][0]["tally"]["requests"] == 2
    assert fields["tally"]["errors"] == {"404": 1}


def test_fields_of_a_newer_server_are_passed_over():
    fields = json.loads(snapshot().to_json())
    fields["weather"] = fields["memory"]["colour"] = "grey"
    assert Snapshot.from_json(json.dumps(fields)) == snapshot()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\xfd", "decode"),
        (b"[]", "Snapshot is a list in place of a dict"),
        (b"{}", "Snapshot has no server"),
        (b"[" * 100_000, "recursion"),
        (b'{"server": {"pid": true}}', "Snapshot.server.pid is a bool in place of a int"),
        (b'{"server": {"pid": 1.5}}', "Snapshot.server.pid is a float in place of a int"),
        (b'{"server": {"pid": 1, "version": null}}', "version is a NoneType in place of a str"),
        (b'{"server": {"pid": 1, "version": "1", "started": NaN}}', "started is nan"),
        (b'{"server": {"pid": 1, "version": "1", "started": 1e999}}', "started is inf"),
    ],
)
def test_anything_else_is_no_snapshot(text, what):
    with pytest.raises(BadSnapshot, match="no snapshot of a server") as raised:
        Snapshot.from_json(text)
    assert what in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"tally": {"buckets": [1, 2]}},
        {"tally": {"buckets": ["1"] * 19}},
        {"tally": {"errors": {"many": 1}}},
        {"leased": "yes"},
        {"workers": {}},
        {"load_ms": 10**400},
    ],
)
def test_a_model_that_is_none_makes_no_snapshot(change):
    fields = json.loads(snapshot(model("m")).to_json())
    fields["models"][0].update(change)
    with pytest.raises(BadSnapshot):
        Snapshot.from_json(json.dumps(fields))


# -- asking ------------------------------------------------------------------------------


def test_the_answer_of_a_server_is_its_snapshot(tmp_path):
    many = snapshot(*(model(f"m{n}", Worker(n, "idle", tally(0.1))) for n in range(2000)))
    with listening(tmp_path / "status", encoded(many)):
        assert ask(tmp_path / "status", 10.0) == many


@pytest.mark.parametrize("answer", [b"", b"hello", b"\x00" * 100_000, encoded(snapshot())[:-1]])
def test_an_answer_that_is_cut_short_or_something_else_is_an_error(tmp_path, answer):
    with listening(tmp_path / "status", answer), pytest.raises(ManyModelsError):
        ask(tmp_path / "status", 10.0)


def test_an_answer_that_does_not_end_in_time_is_an_error(tmp_path):
    started = time.monotonic()
    with (
        listening(tmp_path / "status", encoded(snapshot())[:20], close=False),
        pytest.raises(NoStatus, match=r"no answer within 0\.2 s"),
    ):
        ask(tmp_path / "status", 0.2)
    assert time.monotonic() - started < 5


def test_an_answer_that_trickles_has_no_more_time_than_another(tmp_path):
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "status"))
        listener.listen()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not stop.wait(0.0005):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        try:
            with pytest.raises(NoStatus, match="no answer within"):
                ask(tmp_path / "status", 0.3)
        finally:
            stop.set()
            thread.join(10)


def test_a_socket_that_nobody_listens_on_is_an_error_that_names_it(tmp_path):
    dead_socket(tmp_path / "a" / "status")
    with pytest.raises(NoStatus, match=r"a/status: Connection refused"):
        ask(tmp_path / "a" / "status", 1.0)
    with pytest.raises(NoStatus, match="No such file"):
        ask(tmp_path / "none", 1.0)
    with pytest.raises(NoStatus, match="too long"):
        ask(tmp_path / ("x" * 200), 1.0)


def test_an_endless_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_MOST_BYTES", 1 << 16)
    with (
        listening(tmp_path / "status", b" " * (1 << 17)),
        pytest.raises(NoStatus, match="more than 65536 bytes"),
    ):
        ask(tmp_path / "status", 10.0)


# -- finding -----------------------------------------------------------------------------


def test_the_one_server_that_runs_is_found_beside_what_others_left(tmp_path):
    dead_socket(tmp_path / "manymodels-8080-dead" / "status")
    dead_socket(tmp_path / "manymodels-none-dead" / "status")
    (tmp_path / "manymodels-8081-empty").mkdir()
    (tmp_path / "manymodels-8082-file").write_text("")
    running = tmp_path / "manymodels-8083-x1" / "status"
    with listening(running, b""):
        assert find(None, tmp_path) == running
    with listening(tmp_path / "manymodels-8084-y" / "status", b""):
        assert find(8084, tmp_path).parent.name == "manymodels-8084-y"


def test_several_servers_are_an_error_that_lists_their_ports(tmp_path):
    with (
        listening(tmp_path / "manymodels-9090-a" / "status", b"", b""),
        listening(tmp_path / "manymodels-8080-b" / "status", b""),
    ):
        with pytest.raises(NoStatus, match="choose one by its port: 8080, 9090"):
            find(None, tmp_path)
        assert find(9090, tmp_path).parent.name == "manymodels-9090-a"


def test_several_servers_on_one_port_are_an_error_that_says_where(tmp_path):
    with (
        listening(tmp_path / "manymodels-8080-a" / "status", b""),
        listening(tmp_path / "manymodels-8080-b" / "status", b""),
        pytest.raises(NoStatus, match=r"on port 8080: .*-8080-a, .*-8080-b"),
    ):
        find(8080, tmp_path)


def test_no_server_is_an_error_that_says_so(tmp_path):
    with pytest.raises(NoStatus, match=f"no server is running in {tmp_path}; .*--directory"):
        find(None, tmp_path)
    with (
        listening(tmp_path / "manymodels-9090-a" / "status"),
        pytest.raises(NoStatus, match="no server is running on port 8080"),
    ):
        find(8080, tmp_path)
    with pytest.raises(NoStatus, match="No such file or directory"):
        find(None, tmp_path / "nowhere")


def test_a_server_of_another_user_is_told_from_none(tmp_path, monkeypatch):
    running = tmp_path / "manymodels-8080-a" / "status"
    running.parent.mkdir()

    def refuse(path: Path, timeout: float) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(status, "_connect", refuse)  # root may everything
    with pytest.raises(NoStatus, match="but one that this user may not ask"):
        find(None, tmp_path)


def test_a_server_that_has_much_to_do_is_running(tmp_path):
    path = tmp_path / "manymodels-8080-a" / "status"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        waiting.connect(str(path))
        with waiting:
            assert find(None, tmp_path) == path


# -- what the asker sees itself ----------------------------------------------------------


@pytest.fixture
def child() -> Iterator[int]:
    """A process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"\n", timeout=30)


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_memory_of_a_process_is_split_into_its_own_and_what_it_shares(child):
    found = memory_of(child)
    assert found is not None
    private, shared = found
    assert MIB < private < 100 * MIB
    assert 0 < shared < 100 * MIB


def test_private_memory_is_what_a_fork_has_written_to():
    block = bytearray(64 * MIB)
    for offset in range(0, len(block), 4096):
        block[offset] = 1
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            for offset in range(0, 16 * MIB, 4096):
                block[offset] = 2
            theirs.send(b"x")
            theirs.recv(1)
        finally:
            os._exit(0)
    try:
        assert ours.recv(1) == b"x"
        found = memory_of(pid)
    finally:
        ours.send(b"x")
        os.waitpid(pid, 0)
        ours.close()
        theirs.close()
    assert found is not None
    assert 16 * MIB <= found[0] < 40 * MIB
    assert found[1] >= 48 * MIB


def test_a_process_that_is_gone_has_no_memory(gone):
    assert memory_of(gone) is None
    observed = observe(snapshot(model("m", Worker(gone, "idle", tally()))))
    assert observed.models[0].private_bytes is None


def test_a_models_memory_is_that_of_all_its_processes(child, gone):
    workers = [Worker(pid, "idle", tally()) for pid in (child, os.getpid(), gone)]
    observed = observe(snapshot(model("m", *workers))).models[0]
    first, second, third = observed.workers
    assert None not in (first.private_bytes, second.private_bytes, second.shared_bytes)
    assert third.private_bytes is third.shared_bytes is None
    assert observed.private_bytes == first.private_bytes + second.private_bytes
    assert observed.shared_bytes == max(first.shared_bytes, second.shared_bytes)


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """The processes that were looked at; the shared memory of each is the number of looks."""
    looks: list[int] = []
    monkeypatch.setattr(observing, "memory_of", lambda pid: looks.append(pid) or (1, len(looks)))
    return looks


def shared_bytes(observer: MemoryObserver, now: float, *workers: Worker) -> list[int | None]:
    observed = observer.observe(snapshot(*(model(f"m{w.pid}", w) for w in workers)), now)
    return [one.shared_bytes for one in observed.models]


def test_a_process_that_answers_nothing_is_seldom_looked_at_again(looks):
    observer = MemoryObserver()
    first, second = Worker(1, "idle", tally(0.1)), Worker(2, "idle", tally())
    assert shared_bytes(observer, 0, first, second) == [1, 2]
    assert shared_bytes(observer, observing.IDLE_SECONDS - 1, first, second) == [1, 2]
    assert shared_bytes(observer, observing.IDLE_SECONDS, first, second) == [3, 4]
    assert looks == [1, 2, 1, 2]


def test_a_process_that_answers_is_looked_at_again_after_a_while(looks):
    observer = MemoryObserver()
    before, after = Worker(1, "idle", tally(0.1)), Worker(1, "idle", tally(0.1, 0.1))
    assert shared_bytes(observer, 0, before) == [1]
    assert shared_bytes(observer, observing.BUSY_SECONDS - 1, after) == [1]
    assert shared_bytes(observer, observing.BUSY_SECONDS, after) == [2]


def test_a_process_is_looked_at_once_it_has_loaded(looks):
    observer = MemoryObserver()
    assert shared_bytes(observer, 0, Worker(1, "loading", tally())) == [1]
    assert shared_bytes(observer, 1, Worker(1, "idle", tally())) == [2]


def test_a_process_that_is_gone_for_a_snapshot_is_a_new_one(looks):
    observer = MemoryObserver()
    for now in range(3):
        shared_bytes(observer, now, Worker(1, "idle", tally()))
        shared_bytes(observer, now)
    assert looks == [1, 1, 1]


def test_a_directory_is_weighed_without_following_links(tmp_path):
    directory, outside = tmp_path / "model", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(4 * MIB))
    (directory / "model.joblib").write_bytes(os.urandom(MIB))
    (directory / "link").symlink_to(outside / "large")
    (directory / "links").symlink_to(outside)
    observed = observe(snapshot(model("m", path=str(directory)))).models[0]
    assert observed.directory_bytes is not None
    assert MIB <= observed.directory_bytes < 2 * MIB


def test_a_lease_is_seen_and_so_is_its_end(tmp_path):
    one = snapshot(model("m", path=str(tmp_path)), model("n", path=str(tmp_path)))
    assert [found.leased for found in observe(one).models] == [False, False]
    with share(tmp_path):
        assert [found.leased for found in observe(one).models] == [True, True]
    assert [found.leased for found in observe(one).models] == [False, False]
    exclude(tmp_path).close()


def test_a_lease_is_found_behind_a_link(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    one = snapshot(model("m", path=str(tmp_path / "link")))
    assert observe(one).models[0].leased is False
    with share(tmp_path / "model"):
        assert observe(one).models[0].leased is True


@pytest.mark.parametrize("path", ["/no/such/directory", "", "\x00", "/" + "x" * 5000])
def test_a_directory_that_cannot_be_looked_at_is_unknown(path):
    observed = observe(snapshot(model("m", path=path))).models[0]
    assert (observed.directory_bytes, observed.leased) == (None, None)


# -- the table ---------------------------------------------------------------------------


def rows(text: str) -> list[str]:
    return text.partition("\n\n")[2].splitlines()


def test_the_table_says_what_is_known_of_each_model():
    busy = Worker(
        101, "idle", tally(0.1, 0.1, errors={404: 1}, last_use=NOW - 3), 6 * MIB, 150 * MIB
    )
    other = Worker(102, "idle", tally(0.1, last_use=NOW - 200), 5 * MIB, 151 * MIB)
    text = table(
        snapshot(
            model("wine", busy, directory_bytes=3 * MIB + 400_000, leased=True),
            model("ada", replace(busy, pid=104), other, directory_bytes=2048, leased=False),
            model("new", Worker(103, "loading", tally()), state="loading", load_ms=None),
        ),
        NOW,
    )
    assert rows(text) == [
        "MODEL       PID   PRIVATE   SHARED  REQUESTS  ERRORS  LAST USE     LOAD     DISK  LEASE",
        "ada       104+1  11.0 MiB  151 MiB         3       1   3 s ago    38 ms  2.0 KiB   free",
        "new         103         -        -         0       0     never  loading        -      -",
        "wine        101   6.0 MiB  150 MiB         2       1   3 s ago    38 ms  3.4 MiB   held",
        "3 models      4  17.0 MiB                  5       2                     3.4 MiB      1",
    ]


def test_models_from_one_directory_take_its_room_once_in_the_total():
    both = [model(name, path="/opt/ml/models/m", directory_bytes=2 * MIB) for name in "ab"]
    alone = model("c", directory_bytes=MIB)
    assert rows(table(snapshot(*both, alone), NOW))[-1].split()[-3:-1] == ["3.0", "MiB"]


def test_the_head_has_the_server_the_memory_and_the_volume_with_their_marks():
    counters = Counters(340, {507: 2, 500: 1}, 300, 2, 1)
    text = table(snapshot(volume=VOLUME, counters=counters), NOW, 90)
    assert text.splitlines() == [
        "server   manymodels 0.1.0, port 8080, pid 4711, up 1 h 1 min",
        "loads    340 done, 3 failed (1 with 500, 2 with 507), 300 unloaded; 2 processes replaced,",
        "         1 killed for lack of memory",
        "memory   1.0 GiB of 2.0 GiB (50.0 %, cgroup v1); 128 MiB stay free, 64.0 MiB reserved,",
        "         3 loads refused; 40 processes and threads",
        "volume   19.0 GiB of 20.0 GiB (95.3 %, inodes 12.0 %); evict above 95.0 % to 90.0 %;",
        "         7 removed (900 MiB); /opt/ml/models",
        "",
        "no models",
    ]


def test_a_warning_of_the_watchdog_is_in_the_head():
    warned = replace(VOLUME, warning="nothing is left to remove")
    assert "\nwarning  nothing is left to remove\n" in table(snapshot(volume=warned), NOW)
    assert "warning" not in table(snapshot(volume=VOLUME), NOW)
    assert "volume   unknown" in table(snapshot(), NOW)


def test_two_thousand_models_are_a_row_each_in_the_order_of_their_names():
    names = [f"model-{n * 7919 % 2000:04}" for n in range(2000)]
    busy = Worker(4_194_303, "idle", tally(*[0.1] * 50), 1023 * MIB, 1023 * MIB)
    text = table(snapshot(*(model(name, busy, leased=True) for name in names)), NOW)
    listed = rows(text)
    assert [row.split()[0] for row in listed[1:-1]] == sorted(names)
    assert listed[-1].startswith("2000 models")
    assert "100000" in listed[-1]
    assert {len(row) for row in listed} <= set(range(101))


def test_a_long_name_is_cut_in_the_middle_and_in_the_table_only():
    name = "fraud-detection-" + "x" * 300 + "-2026-11-23"
    one = snapshot(model(name, Worker(1, "idle", tally(0.1))))
    row = rows(table(one, NOW, 100))[1]
    assert row.startswith("fraud-det")
    assert "…" in row.split()[0]
    assert row.split()[0].endswith("-2026-11-23")
    assert len(row) <= 100
    assert name in table(one, NOW, 1000)
    assert name in one.to_json()


def test_a_wide_terminal_does_not_stretch_short_names():
    one = snapshot(model("m", Worker(1, "idle", tally(0.1))))
    assert rows(table(one, NOW, 300)) == rows(table(one, NOW, 100))


def test_a_name_cannot_break_its_row_or_steer_the_terminal():
    one = snapshot(model("a\nb\x1b[2Jc\u202ed\udc80"), volume=replace(VOLUME, warning="x\x1b[1m"))
    text = table(one, NOW, 200)
    assert "a\\nb\\x1b[2Jc\\u202ed\\udc80" in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "name", ["日本語のモデル" * 9, "\uff46" * 80, "e\u0301" * 200, "日本", "é"]
)
def test_columns_are_aligned_whatever_the_script(name):
    text = table(snapshot(model(name, Worker(1, "idle", tally(0.1))), model("b")), NOW, 100)
    heading, *others = rows(text)

    def columns(row: str) -> int:
        wide = sum(0x1100 <= ord(c) <= 0xFFFF and c != "…" for c in row)
        return len(row) + wide - row.count("\u0301")

    assert {columns(row) for row in others} == {len(heading)} != {0}
    assert len(heading) <= 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s ago"),
        (0.4, "0 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (90_000, "1 d ago"),
    ],
)
def test_the_last_use_is_in_its_largest_unit(seconds, words):
    one = snapshot(model("m", Worker(1, "idle", tally(0.1, last_use=NOW - seconds))))
    assert f"  {words}  " in rows(table(one, NOW))[1]


@steady
@given(snapshots, st.floats(0, 1e12), st.integers(100, 300))
def test_any_snapshot_has_a_table(one, now, width):
    text = table(one, now, width)
    assert text.replace("\n", "").isprintable()
    if one.models:
        assert len(rows(text)) == len(one.models) + 2


# -- the command -------------------------------------------------------------------------


def test_the_command_asks_the_server_that_it_finds(tmp_path, child):
    held = tmp_path / "model"
    held.mkdir()
    one = snapshot(model("wine", Worker(child, "idle", tally(0.1)), path=str(held)))
    path = tmp_path / "manymodels-8080-a" / "status"
    with share(held):
        with listening(path, b"", encoded(one)):
            text = run(None, False, tmp_path)
        path.unlink()
        with listening(path, b"", encoded(one)):
            fields = json.loads(run(8080, True, tmp_path))
    assert text.splitlines()[0].startswith("server   manymodels 0.1.0, port 8080, pid 4711")
    assert rows(text)[1].split()[0] == "wine"
    assert rows(text)[1].endswith("held")
    shown = fields["models"][0]
    assert (shown["name"], shown["leased"]) == ("wine", True)
    assert shown["directory_bytes"] > 0
    assert shown["workers"][0]["private_bytes"] > MIB
    assert fields["server"]["pid"] == 4711


def test_without_a_directory_the_command_looks_where_servers_make_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(status.tempfile, "tempdir", str(tmp_path))
    with listening(tmp_path / "manymodels-8080-a" / "status", b"", encoded(snapshot())):
        assert run(None, False, None).endswith("no models")


def test_a_server_that_is_gone_when_asked_is_an_error(tmp_path):
    path = tmp_path / "manymodels-8080-a" / "status"
    with listening(path, b"", b""), pytest.raises(NoStatus, match="closed without an answer"):
        run(None, False, tmp_path)
