"""``python -m container``: build the image, or all images that the tests want."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from container import swap
from container.base import base
from container.engine import ENGINES, BuildError, Engine, EngineError, find, private_podman

HERE = Path(__file__).parent
IMAGE = "localhost/manymodels"
EXTENDED = "localhost/manymodels-extended"
PRIVATE = HERE.parent / "build" / "containers"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m container", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the image with the engine of this machine")
    build.add_argument("--engine", choices=ENGINES, help="default: the first that works")
    build.add_argument("--tag", default="manymodels")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    wheel = commands.add_parser("wheel", help="write this checkout's wheel")
    wheel.add_argument("directory", type=Path)
    commands.add_parser("test-images", help="build what `make image-test` runs")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            engine = find(arguments.engine)
            given = dict(pair.partition("=")[::2] for pair in arguments.build_arg)
            image(engine, arguments.tag, given)
            print(f"{engine.name} has built {arguments.tag}")
        elif arguments.command == "wheel":
            swap.write_wheel(arguments.directory)
        else:
            test_images(test_engine())
    except BuildError as error:
        sys.exit(
            f"container: {error}\nIf its base cannot be pulled, name one that is here by "
            '--build-arg BASE=NAME; "make image-test" makes one of Debian\'s packages.'
        )
    except EngineError as error:
        sys.exit(f"container: {error}")


def image(engine: Engine, tag: str, arguments: Mapping[str, str]) -> None:
    """Build container/Dockerfile of this checkout."""
    engine.build(HERE / "Dockerfile", HERE.parent, tag, arguments=arguments)


def test_images(engine: Engine) -> None:
    """Build all images on one base, which is made of Debian's packages if none can be pulled."""
    debian = base(engine)
    image(engine, IMAGE, {"BASE": debian})
    extend = HERE / "extend"
    engine.build(extend / "Dockerfile", extend, EXTENDED, arguments={"IMAGE": IMAGE})
    swap.build(engine, debian)


def test_engine() -> Engine:
    """Return what the tests build and run images with: docker, else a podman of their own."""
    engine = find(among=("docker", "podman"))
    return engine if engine.name == "docker" else private_podman(PRIVATE)


if __name__ == "__main__":
    main()
