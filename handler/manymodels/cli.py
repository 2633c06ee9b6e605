"""The commands: ``serve``, what a container runs, and ``manymodels``."""

from __future__ import annotations

import os
import sys

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


main.add_command(serve)

if __name__ == "__main__":
    main()
