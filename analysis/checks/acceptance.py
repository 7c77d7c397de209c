"""Read a TOML file of accepted findings, and apply it to findings.

[[accept]]
rule = "files-evaluations"
where = "sinv6/*/criteo1tb_jax/*"
reason = "the submission runs out of memory"
"""

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pydantic

from analysis.checks.rules import RULES, oddity_rule
from metaopt.bench.records.findings import Finding

oddity_rule(
    "accept-unused",
    "every entry of the --accept file matches a finding",
    means="The finding is gone, or the entry has a typo.",
    fix="Remove or correct the entry.",
    severity="note",
)


class Acceptance(pydantic.BaseModel):
    """One entry of the file."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    rule: str
    where: str  # a glob pattern
    reason: str = pydantic.Field(min_length=1)

    @pydantic.field_validator("rule")
    @classmethod
    def _is_known(cls, id: str) -> str:
        if all(rule.id != id for rule in RULES):
            raise ValueError(f"there is no rule {id!r}; `validate --rules` lists them")
        return id

    def matches(self, finding: Finding) -> bool:
        """Return whether a finding is accepted by this entry."""
        return finding.rule == self.rule and fnmatchcase(finding.where, self.where)


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    accept: list[Acceptance]


class ReviewedFinding(NamedTuple):
    """A finding, and the reason for accepting it, if it is accepted."""

    finding: Finding
    accepted: str | None


def read_acceptances(path: Path) -> list[Acceptance]:
    """Read an acceptance file.

    Raises:
        ValueError: The file is invalid; the message names the entry, the key and the rule.
    """
    try:
        return _File.model_validate(tomllib.loads(path.read_text("utf-8-sig"))).accept
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [part + 1 if isinstance(part, int) else part for part in first["loc"]]
        message = f"{' '.join(map(str, place))}: {first['msg']}"
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = str(error)
    raise ValueError(f"{path}: not a file of accepted findings: {message}.")


def review_findings(
    found: Sequence[Finding], accepted: Sequence[Acceptance]
) -> list[ReviewedFinding]:
    """Return each finding with the reason of the first entry that matches it.

    Entries that match nothing are added as notes at the end.
    """
    judged, used = [], set()
    for finding in found:
        matching = [index for index, entry in enumerate(accepted) if entry.matches(finding)]
        used |= set(matching)
        judged.append(ReviewedFinding(finding, accepted[matching[0]].reason if matching else None))
    (unused,) = (rule for rule in RULES if rule.id == "accept-unused")
    for index, entry in enumerate(accepted):
        if index not in used:
            what = f"no {entry.rule} to accept: {entry.reason}"
            note = Finding(unused.id, unused.severity, what, entry.where, unused.fix)
            judged.append(ReviewedFinding(note, None))
    return judged
