"""What the documents say and the code does not, or the other way round."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("sample_models/*.md")])
VARIABLE = re.compile(r"(SAGEMAKER|SM|MANYMODELS|MMS|JAVA)_[A-Z_]+")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def variables_read() -> set[str]:
    files = (ROOT / "handler/manymodels/settings").glob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and VARIABLE.fullmatch(text)}


def variables_in_tables() -> list[str]:
    rows = (ROOT / "docs/settings.md").read_text().splitlines()
    found = [re.match(r"\| `([A-Z_]+)` \|", row) for row in rows]
    return [match[1] for match in found if match]


def test_the_table_of_settings_names_every_variable_once_and_no_other():
    assert sorted(variables_in_tables()) == sorted(variables_read())


@pytest.mark.parametrize("row", variables_in_tables())
def test_every_setting_has_a_meaning_a_default_and_what_is_allowed(row):
    text = (ROOT / "docs/settings.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| `{row}` |"))
    _, _, meaning, _, allowed, _ = line.split("|")
    assert meaning.strip()
    assert allowed.strip()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    broken = [
        target
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`make ([a-z-]+)", document.read_text())
    }
    assert named <= targets
