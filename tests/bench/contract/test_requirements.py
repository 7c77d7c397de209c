"""A submission's requirements, and AlgoPerf's versions."""

import pytest

from metaopt.bench.contract.requirements import (
    ALGOPERF_PINS,
    beyond_algoperf,
    read_requirements,
)


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "requirements.txt").write_text(text)
        return tmp_path

    return write


def test_requirements_are_read_with_their_lines_and_without_comments(write):
    folder = write("# Nothing new.\n\n-r more.txt\nEin_Ops >= 0.8  # shapes\njax\n")

    found = [(line.name, line.where) for line in read_requirements(folder)]

    assert found == [("ein-ops", "requirements.txt:4"), ("jax", "requirements.txt:5")]


def test_a_folder_without_the_file_requires_nothing(tmp_path):
    assert read_requirements(tmp_path) == []


def test_a_line_that_pip_cannot_read_is_named(write):
    with pytest.raises(ValueError, match=r"requirements.txt:2: 'optax=1' is not"):
        read_requirements(write("jax\noptax=1\n"))


@pytest.mark.parametrize(
    "text, beyond",
    [
        ("optax>=0.2.7", [("optax", ALGOPERF_PINS["optax"])]),
        ("ml_dtypes<0.5", [("ml-dtypes", ALGOPERF_PINS["ml-dtypes"])]),
        ("optax>=0.2.2\njax\neinops==1.0", []),
    ],
)
def test_only_what_algoperfs_pinned_versions_do_not_meet_is_beyond_them(text, beyond, write):
    assert [(line.name, pin) for line, pin in beyond_algoperf(write(text))] == beyond


def test_the_pins_are_those_of_the_environments_that_are_tested(root):
    listed = (root / "tests" / "algoperf" / "requirements-pins.txt").read_text()

    for name, version in ALGOPERF_PINS.items():
        if name != "jaxlib":  # follows from jax
            assert f"\n{name.replace('ml-dtypes', 'ml_dtypes')}=={version}\n" in listed
