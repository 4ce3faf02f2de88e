"""The Python in the README, run from top to bottom as a reader would."""

from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

pytestmark = pytest.mark.slow

README = Path(__file__).parent.parent / "README.md"


def test_all_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = list(Document.parse(str(README), PythonCodeBlockParser()).examples())
    assert len(examples) == 3
    for example in examples:
        example.evaluate()
    assert {path.name for path in tmp_path.iterdir()} == {"orders.png", "orders.nc", "widths.png"}
