"""docs/handler.md, run as it stands: its files are written, its commands answer what it says.

A block of Python whose first line is a comment with a file name is that file; a script that
trains is run. In a console block a line after ``$ `` is a command and what follows is its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.functional.harness import serving

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "handler.md"
BLOCK = re.compile(r"^```(python|console|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|json|txt))\n")
CURL = """
    import argparse, http.client, sys, urllib.parse
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", default=None)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", "--data-binary", default=None)
    options = parser.parse_args()
    url = urllib.parse.urlsplit("http://" + options.url)
    headers = dict(header.split(": ", 1) for header in options.H)
    data = options.data_binary
    if data is not None and data.startswith("@"):
        with open(data[1:], "rb") as file:
            data = file.read()
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    target = url.path + ("?" + url.query if url.query else "")
    connection.request(options.X or ("POST" if data is not None else "GET"), target, data, headers)
    sys.stdout.buffer.write(connection.getresponse().read())
"""


class Command(NamedTuple):
    """A line after ``$ ``, its continuations, and the output that the document shows."""

    line: str
    output: str


def commands(block: str) -> list[Command]:
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = 1
        while lines[end - 1].endswith("\\") or (lines[end : end + 1] and lines[end][:2] == "> "):
            end += 1
        typed = "\n".join(line.removeprefix("> ") for line in lines[:end])
        found.append(Command(typed, "\n".join(lines[end:]).strip()))
    return found


@pytest.fixture
def tools(tmp_path):
    """A PATH whose python is ours, and whose curl needs no curl."""
    directory = tmp_path / "bin"
    directory.mkdir()
    # A link to a virtualenv's interpreter would not know of its packages.
    (directory / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / "curl").write_text(f"#!{sys.executable}\n{textwrap.dedent(CURL)}")
    for tool in directory.iterdir():
        tool.chmod(0o755)
    scripts = Path(sys.executable).parent
    return f"{directory}{os.pathsep}{scripts}{os.pathsep}{os.environ['PATH']}"


def test_every_example_of_the_handlers_document_does_what_it_says(tmp_path, tools):
    work = tmp_path / "work"
    work.mkdir()
    wrong = []
    with serving() as server:
        for language, block in BLOCK.findall(DOCUMENT.read_text()):
            named = FILE_NAME.match(block)
            if language in ("python", "json") and named:
                path = work / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block[named.end() :] if language == "json" else block)
                continue
            for command in commands(block):
                answer = run(command, server.port, work, tools)
                if normal(answer) != normal(command.output):
                    wrong.append(f"$ {command.line}\n{answer}\n-- instead of\n{command.output}")
    assert not wrong, "\n\n".join(wrong)


def run(command: Command, port: int, work: Path, path: str) -> str:
    line = command.line.replace("localhost:8080", f"localhost:{port}")
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", line], cwd=work, env=environment, capture_output=True, timeout=120
    )
    return (done.stdout + done.stderr).decode().strip()


def normal(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_the_document_has_an_example_of_each_chapter():
    chapters = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    assert chapters
    without = [chapter.partition("\n")[0] for chapter in chapters if "```" not in chapter]
    assert not without
