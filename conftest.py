"""The Python in the README is run as a test, in a folder of its own."""

import os
import tempfile

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def _enter(namespace: dict) -> None:
    namespace["away"], namespace["back"] = tempfile.TemporaryDirectory(), os.getcwd()
    os.chdir(namespace["away"].name)


def _leave(namespace: dict) -> None:
    os.chdir(namespace["back"])
    namespace["away"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md"], setup=_enter, teardown=_leave
).pytest()
