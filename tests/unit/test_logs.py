"""The container's log: from the bytes in a real pipe to lines with level, model and time."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.frontend.logs import Log, Source
from manymodels.settings import LogSettings

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""

LONGEST = 32 * 1024
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    r"(?P<level>[A-Z]+) (?:\[(?P<model>[^]]+)\] )?(?P<message>.*)"
)


class Pipe:
    """A pipe with a Source at its end, and what the Source has had written to stdout."""

    def __init__(self, capsys, model: str | None = None, **settings: object) -> None:
        reader, self._writer = os.pipe()
        self._capsys = capsys
        self.source = Source(reader, Log(LogSettings(**settings)), model)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._writer, data[:4096]) :]
            assert self.source.pump()

    def end(self) -> None:
        os.close(self._writer)
        while self.source.pump():
            pass
        self.source.close()

    def raw(self) -> list[str]:
        return self._capsys.readouterr().out.split("\n")[:-1]

    def lines(self) -> list[tuple[str, str | None, str]]:
        """Level, model and message of each line since the last call."""
        found = [TEXT_LINE.fullmatch(line) for line in self.raw()]
        return [(line["level"], line["model"], line["message"]) for line in found]


@pytest.fixture
def pipe(capsys) -> Pipe:
    return Pipe(capsys)


def test_lines_are_written_when_they_are_whole(pipe):
    pipe.write(b"one\ntw")
    assert pipe.lines() == [("INFO", None, "one")]
    pipe.write(b"o\n\nthree\n")
    assert pipe.lines() == [("INFO", None, "two"), ("INFO", None, "three")]
    pipe.end()
    assert pipe.lines() == []


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("TRACE", "DEBUG"),
        ("DEBUG", "DEBUG"),
        ("INFO", "INFO"),
        ("WARN", "WARNING"),
        ("WARNING", "WARNING"),
        ("ERROR", "ERROR"),
        ("FATAL", "CRITICAL"),
        ("CRITICAL", "CRITICAL"),
    ],
)
def test_a_line_that_begins_with_a_level_has_it(capsys, said, level):
    pipe = Pipe(capsys, level=logging.DEBUG)
    pipe.write(f"{said} something happened\n".encode())
    assert pipe.lines() == [(level, None, "something happened")]
    pipe.end()


@pytest.mark.parametrize("line", ["ERRORS everywhere", "error lower case", "an ERROR within"])
def test_a_line_that_begins_with_anything_else_was_printed(pipe, line):
    pipe.write(line.encode() + b"\n")
    assert pipe.lines() == [("INFO", None, line)]
    pipe.end()


def test_lines_below_the_level_are_left_out(capsys):
    pipe = Pipe(capsys, level=logging.WARNING)
    pipe.write(b"printed\nDEBUG d\nINFO i\nWARN w\nERROR e\n")
    pipe.end()
    assert [message for _, _, message in pipe.lines()] == ["w", "e"]


def test_every_line_of_a_model_carries_its_name(capsys):
    pipe = Pipe(capsys, "my-model")
    pipe.write(b"printed\nWARN w\n")
    pipe.end()
    assert pipe.lines() == [("INFO", "my-model", "printed"), ("WARNING", "my-model", "w")]


def test_an_unended_last_line_is_written_at_the_end(pipe):
    pipe.write(b"ERROR the last words")
    assert pipe.lines() == []
    pipe.end()
    assert pipe.lines() == [("ERROR", None, "the last words")]


def test_closing_writes_out_what_is_still_in_the_pipe(capsys):
    reader, writer = os.pipe()
    source = Source(reader, Log(LogSettings()))
    os.write(writer, b"one\ntwo")
    source.close()
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    os.close(writer)


def test_a_pipe_with_nothing_in_it_is_not_at_its_end(pipe):
    assert pipe.source.pump()
    pipe.end()
    assert pipe.lines() == []


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("size", [LONGEST - 1, LONGEST, LONGEST + 1, 1_000_000])
def test_a_very_long_line_comes_in_pieces_and_nothing_is_lost(pipe, size, ended):
    pipe.write(b"x" * size + b"\n" * ended)
    pipe.end()
    pieces = [message for _, _, message in pipe.lines()]
    assert "".join(pieces) == "x" * size
    assert max(map(len, pieces)) <= LONGEST + 4096


def test_every_piece_of_a_very_long_line_has_the_lines_level(capsys):
    pipe = Pipe(capsys, level=logging.ERROR)
    pipe.write(b"ERROR " + b"x" * 100_000 + b"\nprinted\n")
    pipe.end()
    lines = pipe.lines()
    assert {level for level, _, _ in lines} == {"ERROR"}
    assert "".join(message for _, _, message in lines) == "x" * 100_000


def test_a_megabyte_without_a_line_end_is_not_kept(pipe):
    pipe.write(b"x" * 1_000_000)
    assert sum(len(message) for _, _, message in pipe.lines()) > 900_000
    pipe.end()


def test_binary_garbage_is_replaced(pipe):
    pipe.write(b"\xff\xfe\x80 caf\xc3\xa9\n")
    pipe.end()
    assert pipe.lines() == [("INFO", None, "��� café")]


@steady
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_any_bytes_in_any_pieces_give_the_same_lines(chunks):
    class Recorder(Log):
        def __init__(self) -> None:
            super().__init__(LogSettings())
            self.lines: list[tuple[int, str]] = []

        def write(self, level: int, message: str, model: str | None = None) -> None:
            self.lines.append((level, message))

    def lines(pieces: list[bytes]) -> list[tuple[int, str]]:
        reader, writer = os.pipe()
        recorder = Recorder()
        source = Source(reader, recorder)
        for piece in pieces:
            os.write(writer, piece)
            source.pump()
        os.close(writer)
        source.close()
        return recorder.lines

    assert lines(chunks) == lines([b"".join(chunks)])


@pytest.mark.parametrize("model", [None, "m"])
def test_json_lines_parse_and_hold_time_level_model_and_message(capsys, model):
    pipe = Pipe(capsys, model, json=True)
    pipe.write('WARN "quoted" \\ é \x00 \x1b[1m \u2028.\n'.encode())
    pipe.end()
    (line,) = pipe.raw()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    expected = {"level": "WARNING", "message": '"quoted" \\ é \x00 \x1b[1m \u2028.'}
    assert entry == ({**expected, "model": model} if model else expected)


def log_in_subprocess(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    setup = (
        "from manymodels.frontend.logs import Log; from manymodels.settings import LogSettings; "
        "log = Log(LogSettings()); "
    )
    return subprocess.run(
        [sys.executable, "-c", setup + code],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
    )


def test_a_reader_that_is_gone_is_no_reason_to_stop():
    reader, writer = os.pipe()
    os.close(reader)
    code = "log.info('a'); log.info('b'); import os; os._exit(0)"
    command = (
        "from manymodels.frontend.logs import Log; from manymodels.settings import LogSettings; "
        f"log = Log(LogSettings()); {code}"
    )
    ended = subprocess.run(
        [sys.executable, "-c", command], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("encoding", "message"), [("utf-8", r"a \udcff b"), ("ascii", "é"), ("latin-1", r"\u4e2d")]
)
def test_a_line_that_stdout_cannot_encode_is_no_reason_to_stop(encoding, message):
    ended = log_in_subprocess(f"log.info('{message}')", PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert b" INFO " in ended.stdout
