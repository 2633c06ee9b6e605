"""What the container runs: ``serve`` starts Multi Model Server, any other command is executed."""

from __future__ import annotations

import os
import sys

HANDLER = "/home/model-server/model_handler.py:handle"


def main(arguments: list[str]) -> None:
    if arguments == ["serve"]:
        from sagemaker_inference import model_server

        # Returns when the frontend has ended, after SIGTERM or by itself.
        model_server.start_model_server(handler_service=HANDLER)
    else:
        os.execvp(arguments[0], arguments)


if __name__ == "__main__":
    main(sys.argv[1:] or ["serve"])
