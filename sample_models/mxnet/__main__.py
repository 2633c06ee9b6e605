"""``python -m sample_models.mxnet --out DIR``: train MXNet's sample models."""

from __future__ import annotations

import argparse
from pathlib import Path

from sample_models.build import Workspace
from sample_models.mxnet.digits import train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sample_models.mxnet", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to build the models in")
    workspace = Workspace(parser.parse_args().out)
    train(workspace)
    print(f"{len(workspace.names)} models in {workspace.root}: {', '.join(workspace.names)}")


if __name__ == "__main__":
    main()
