"""The generic handler behind the real frontend, where one request is not enough to see it."""

from __future__ import annotations

import json
import threading

from tests.functional.format_models import ASKED, KINDS
from tests.functional.harness import Answer


def test_each_request_of_a_batch_has_its_own_outcome(server, tmp_path):
    expected = KINDS["scikit-learn, trained on a DataFrame"].write(tmp_path).tolist()
    assert server.load("batched", tmp_path, batch_size=8, max_batch_delay=200).status == 200
    answers: dict[int, Answer] = {}

    def ask(number: int) -> None:
        row = "1,x" if number % 4 == 3 else ",".join(map(str, ASKED[number % 4]))
        accept = ("application/json", "text/csv")[number % 2]
        answers[number] = server.invoke("batched", row, headers={"Accept": accept})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, answer in answers.items():
        if number % 4 == 3:
            assert (answer.status, answer.json()["type"]) == (400, "BadRequest")
        else:
            assert answer.status == 200
            assert answer.headers["content-type"] == ("application/json", "text/csv")[number % 2]
            found = json.loads(answer.body)
            assert found == (expected[number % 4] if number % 2 else [expected[number % 4]])
    assert len(answers) == 32


def test_a_pickle_finds_its_class_in_the_models_code(server, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "doubling.py").write_text(
        "class Doubler:\n    def predict(self, rows):\n        return rows[:, 0] * 2\n"
    )
    (tmp_path / "model.pkl").write_bytes(b"cdoubling\nDoubler\n)\x81.")
    assert server.load("doubler", tmp_path).status == 200, server.log()
    assert server.invoke("doubler", "21,1").json() == [42.0]


def test_two_models_with_modules_of_one_name_do_not_meet(server, tmp_path):
    for name in ("one", "two"):
        code = tmp_path / name / "code"
        (code / "lib" / "shared").mkdir(parents=True)
        (code / "helper.py").write_text(f"NAME = {name!r}\n")
        (code / "lib" / "shared" / "__init__.py").write_text(f"VERSION = '{name} 1.0'\n")
        (code / "inference.py").write_text(
            "import helper, shared\n"
            "def model_fn(model_dir): return None\n"
            "def transform_fn(model, data, content_type, accept):\n"
            "    return f'{helper.NAME} {shared.VERSION}', 'text/plain'\n"
        )
        assert server.load(name, tmp_path / name).status == 200, server.log()
    assert server.invoke("one").body == b"one one 1.0"
    assert server.invoke("two").body == b"two two 1.0"
