"""The rules of design.md's table: who imports whom, and who touches the environment."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import manymodels

PACKAGE = Path(manymodels.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LAUNCHER = "backend/home/mms/model_service_worker.py"

ROOMS = {
    "errors": set(),
    "settings": {"errors", "settings"},
    "wire": {"errors", "wire"},
    "content": {"errors", "content"},
    "artifacts": {"errors", "content", "artifacts"},
    "service": {"errors", "content", "artifacts", "settings", "service"},
    "backend": {"errors", "settings", "wire", "service", "storage", "status", "backend"},
    "storage": {"errors", "settings", "storage"},
    "status": {"errors", "storage", "status", "backend.process_memory"},
    "frontend": {
        "errors",
        "settings",
        "frontend",
        "backend.cgroup",
        "backend.home",
        "backend.channel",
        "backend.linux",
        "backend.slots",
    },
}
"""What each room may import of ours. A room that is not here may not import at all yet."""
CONTAINER_HALF = sorted(ROOMS)
CLIENT_SIDE = {"boto3", "botocore", "starlette", "fastapi", "uvicorn", "aiohttp", "httpx", "flask"}
"""AWS's client and the HTTP frameworks: none is in the image."""
ENVIRONMENT_TOUCHES = {
    # The command line takes the whole of it: for `serve`, what `describe` loads, the watchdog.
    "cli.py": 3,
    # The launcher: the host's address, what it hands over, and, without /proc, the host's own.
    LAUNCHER: 3,
    # The host: its settings, and the zygote's environment.
    "backend/host.py": 2,
    # The generic handler: its settings, in whatever worker it runs.
    "service/model_service.py": 1,
    # A model process makes the launch's environment its own, and reads one variable of it.
    "backend/process.py": 4,
    # The zygote: its settings, and its own environment when it starts anew.
    "backend/zygote.py": 2,
}
"""Every file that touches os.environ, and how often."""


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module, or name of one, that a file imports, at the top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """The names below ``manymodels`` that a file imports."""
    found = {name.partition(".")[2] for name in imports(path) if name.startswith("manymodels.")}
    return found - {"__version__"}


def allowed(name: str, permissions: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in permissions)


def touches_of_the_environment(tree: ast.AST) -> int:
    """Count the uses of os.environ, whatever way."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            count += isinstance(node.value, ast.Name) and node.value.id in ("os", "posix")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "posix"):
            count += any(alias.name in names for alias in node.names)
    return count


@pytest.mark.parametrize("room", CONTAINER_HALF)
def test_a_room_imports_only_what_the_table_allows(room):
    files = [path for path in MODULES if room_of(path) == room]
    assert files
    for path in files:
        forbidden = {name for name in ours(path) if not allowed(name, ROOMS[room])}
        assert not forbidden, f"{relative(path)} imports {', '.join(sorted(forbidden))}"


def test_every_module_is_in_a_room_of_the_table():
    known = {*ROOMS, "__init__", "cli"}
    assert {room_of(path) for path in MODULES} <= known, "a new room needs a row here"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_imports_the_command_line(path):
    if relative(path) != "cli.py":
        assert not any(allowed(name, {"cli"}) for name in ours(path))
    assert "manymodels.cli" not in re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)


def test_modules_that_are_imported_by_name_keep_to_the_table_too():
    for path in MODULES:
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = {
            match[1]
            for text in strings
            if (match := re.fullmatch(r"manymodels\.([a-z_.]+)(?::\w+)?", text))
        }
        room = room_of(path)
        # The command line of a part is how the frontend starts the host, and names a log's source.
        started = {"backend.host", "backend.zygote", "zygote", "host", "model"}
        # manymodels.json is a file.
        started |= {"json"}
        # The settings' default handler is a name that goes to the frontend.
        default_handler = {"service"} if room == "settings" else set()
        for name in named - started - default_handler:
            assert allowed(name, ROOMS[room]), f"{relative(path)} names manymodels.{name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_container_half_knows_no_aws_client_and_no_http_framework(path):
    if room_of(path) in CONTAINER_HALF:
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & CLIENT_SIDE


def test_no_file_says_pkg_resources():
    for path in MODULES:
        assert "pkg_resources" not in path.read_text(), relative(path)


def test_the_launcher_imports_nothing_of_ours_and_only_built_in_modules_at_the_top():
    path = PACKAGE / LAUNCHER
    assert not any(name.startswith("manymodels") for name in imports(path))
    top = {
        alias.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert top == {"_socket", "posix", "sys"}


def test_the_environment_is_touched_only_where_it_is_handed_on():
    counts = {relative(p): touches_of_the_environment(ast.parse(p.read_text())) for p in MODULES}
    assert {name: count for name, count in counts.items() if count} == ENVIRONMENT_TOUCHES


def test_no_two_modules_import_each_other():
    graph = {}
    modules = {
        relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in MODULES
    }
    for module, path in modules.items():
        targets = set()
        for name in ours(path):
            owner = name if name in modules else name.rpartition(".")[0]
            # A package's own __init__ gathers its modules; that is no cycle of theirs.
            if owner in modules and owner != module:
                targets.add(owner)
        graph[module] = targets

    def reaches(start: str) -> set[str]:
        seen, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting.extend(graph[module])
        return seen

    assert not [module for module in graph if module in reaches(module)]
