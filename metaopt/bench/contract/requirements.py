"""What a submission needs beyond AlgoPerf's environment: its ``requirements.txt``."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS_FILE = "requirements.txt"
# The versions that AlgoPerf v0.6 pins and that a JAX submission meets there.
ALGOPERF_PINS = {
    "absl-py": "2.1.0", "chex": "0.1.86", "flax": "0.10.7", "jax": "0.7.0", "jaxlib": "0.7.0",
    "ml-dtypes": "0.5.1", "optax": "0.2.2", "protobuf": "4.25.5",
}  # fmt: skip


class RequirementLine(NamedTuple):
    """One requirement and its place."""

    requirement: Requirement
    where: str  # "requirements.txt:1"

    @property
    def name(self) -> str:
        """The distribution's name in lower case and with hyphens, as pip compares names."""
        return canonicalize_name(self.requirement.name)


def read_requirements(folder: Path) -> list[RequirementLine]:
    """Return the requirements in a submission's folder; none without the file.

    Empty lines, comments and pip's options are left out.

    Raises:
        ValueError: A line is not a requirement; names the file and the line.
    """
    path = folder / REQUIREMENTS_FILE
    found = []
    for number, line in enumerate(
        path.read_text("utf-8").splitlines() if path.is_file() else (), 1
    ):
        text, where = line.partition("#")[0].strip(), f"{REQUIREMENTS_FILE}:{number}"
        if not text or text.startswith("-"):
            continue
        try:
            found.append(RequirementLine(Requirement(text), where))
        except InvalidRequirement:
            raise ValueError(f"{where}: {text!r} is not a requirement that pip can read.") from None
    return found


def beyond_algoperf(folder: Path) -> Iterator[tuple[RequirementLine, str]]:
    """Yield each requirement that AlgoPerf's pinned version does not meet, with that version."""
    for line in read_requirements(folder):
        pin = ALGOPERF_PINS.get(line.name)
        if pin is not None and pin not in line.requirement.specifier:
            yield line, pin
