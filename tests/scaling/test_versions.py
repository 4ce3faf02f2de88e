"""Versions of workers, compared with those of this process."""

import platform
from importlib.metadata import version

import pytest

from nthsim.scaling.versions import PACKAGES, mismatch

PYTHON = platform.python_version()
MINOR = PYTHON.rpartition(".")[0]


def versions(**others: str | None) -> dict[str, str | None]:
    """Those of this process, but for others."""
    return {"python": f"{PYTHON}.final.0", **{name: version(name) for name in PACKAGES}, **others}


def test_equal_versions_and_another_patch_of_python_pass():
    pytest.importorskip("distributed")
    assert mismatch("worker w", versions()) is None
    assert mismatch("worker w", versions(python=f"{MINOR}.99.final.0")) is None


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            {"python": "3.2.1.final.0", "jax": "0.1"},
            f"worker w has Python 3.2 and this process Python {MINOR}: start it by Python {MINOR}",
        ),
        (
            {"jax": "0.1"},
            f"worker w has jax 0.1 and this process jax {version('jax')}: there, install "
            f"jax=={version('jax')}",
        ),
        (
            {"nthsim": None},
            f"worker w has no nthsim and this process nthsim {version('nthsim')}: there, install "
            f"nthsim=={version('nthsim')}",
        ),
    ],
)
def test_difference_names_the_worker_both_versions_and_the_cure(others, sentence):
    pytest.importorskip("distributed")
    assert mismatch("worker w", versions(**others)) == sentence
