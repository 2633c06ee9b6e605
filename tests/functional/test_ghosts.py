"""A model that the frontend could not start a process for is taken off its list again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.functional.harness import Server, eventually, write_handler

SOAK = int(os.environ.get("SOAK_CYCLES", "200")) > 200
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
"""Root that permissions hold for."""
HANDLER = """
    def handle(data, context):
        return None if data is None else ["ok"] * len(data)
"""


def can_drop_privilege() -> bool:
    if os.geteuid() or shutil.which("setpriv") is None:
        return False
    return not subprocess.run([*WITHOUT_PRIVILEGE, "true"], capture_output=True).returncode


@pytest.mark.skipif(not SOAK, reason="the frontend itself waits for a minute: make soak")
@pytest.mark.skipif(not can_drop_privilege(), reason="needs root and setpriv")
@pytest.mark.timeout(300)
def test_a_model_whose_process_could_not_be_started_can_be_loaded_two_minutes_later(tmp_path):
    server = Server(command=(*WITHOUT_PRIVILEGE, *Server().command))
    model = write_handler(tmp_path / "model", HANDLER)
    name = "a-model-with-a-name-of-more-than-25-characters ü"
    try:
        server.start()
        other = write_handler(tmp_path / "other", HANDLER)
        assert server.load(name[:30], other, handler="custom:handle").status == 200
        shutil.chown(model, 65534)
        model.chmod(0o700)
        body = json.dumps({"model_name": name, "url": str(model), "handler": "custom:handle"})
        kind = {"Content-Type": "application/json"}
        assert server.request("POST", "/models", body, kind, timeout=90).status == 500
        model.chmod(0o755)
        assert server.load(name, model, handler="custom:handle").status == 409
        eventually(lambda: "it may be loaded again" in server.log(), 60)
        assert server.load(name, model, handler="custom:handle").status == 200
        assert server.load(name[:30], other, handler="custom:handle").status == 409
    finally:
        server.close()
