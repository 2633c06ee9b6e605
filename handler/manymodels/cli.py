"""The commands: ``serve``, what a container runs, and ``manymodels``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from manymodels import __version__
from manymodels.errors import ManyModelsError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def serve() -> None:
    """Serve models on SageMaker's container contract until SIGTERM.

    Everything is set by the environment: docs/settings.md has the table.
    """
    from manymodels.frontend.supervisor import serve as run
    from manymodels.settings import ServeSettings

    environment = dict(os.environ)
    try:
        status = run(ServeSettings.from_environment(environment), environment)
    except ManyModelsError as error:
        click.echo(f"serve: {error}", err=True)
        status = 1
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="manymodels")
def main() -> None:
    """Thousands of models in one container, behind SageMaker's multi-model contract."""


@main.command()
def home() -> None:
    """Print the directory to name in MODEL_SERVER_HOME.

    An image that starts Multi Model Server itself gets this backend by that one variable.
    """
    from manymodels import backend

    click.echo(backend.home())


@main.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def describe(directory: Path) -> None:
    """Load the model in DIRECTORY as the server would, and say what it is.

    The generic handler's settings hold here too. Loading runs what the model brings: its code, and
    whatever a pickle does.
    """
    import logging

    from manymodels import service

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    try:
        description = service.describe(directory, os.environ)
    except ManyModelsError as error:
        click.echo(f"manymodels: {error}", err=True)
        sys.exit(1)
    click.echo(json.dumps(description, indent=2, default=str))


@main.command()
@click.option("--root", type=click.Path(path_type=Path), help="Where model directories are.")
@click.option("--high", help="How full may be: a share, as 95%, or a size, as 20g.")
@click.option("--low", help="How full it is after directories were removed.")
@click.option("--budget", help="What the root may hold on a volume that it shares: 20g.")
@click.option("--settle", help="Seconds after its last change a directory may be arriving for.")
@click.option("--once", is_flag=True, help="Look once: status 1 if it is too full afterwards.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def watchdog(once: bool, dry_run: bool, **options: Path | str | None) -> None:
    """Remove unused model directories when their volume is nearly full.

    `serve` does this by itself. The variables MANYMODELS_STORAGE_* hold here too; options beat
    them.
    """
    from manymodels.storage import command

    given = {name: str(value) for name, value in options.items() if value is not None}
    try:
        sys.exit(command.run(os.environ, given, once, dry_run))
    except ManyModelsError as error:
        click.echo(f"manymodels: {error}", err=True)
        sys.exit(2)


@main.command()
@click.option("--port", type=int, help="The server's port, if several are running.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The TMPDIR of the server, if it is not that of this command.",
)
def status(port: int | None, as_json: bool, directory: Path | None) -> None:
    """Show a running server's models, memory and volume."""
    from manymodels.status import command

    try:
        click.echo(command.run(port, as_json, directory))
    except ManyModelsError as error:
        click.echo(f"manymodels: {error}", err=True)
        sys.exit(1)


main.add_command(serve)

if __name__ == "__main__":
    main()
