"""Entries of the leaderboard: the records of a contender's runs on a workload, as JSON files.

    <leaderboard>/records/<hardware>/<workload>/<contender>.json      :class:`Entry`

A file has one entry for each campaign, because costs under different budgets or targets cannot be
compared. The files of the campaigns are in ``<leaderboard>/campaigns``; they name the workloads
that are still to run. In file names, unusual characters of names are percent-encoded. Files can
come from anyone. One that is too large, is a link, lies elsewhere than its content says or does
not have this schema is refused; the error names it.
"""

import json
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import pydantic

from analysis.logs.hardware import Fingerprint
from analysis.scoring.costs import StudyCosts, cell_of
from analysis.scoring.orders import Attempt
from analysis.wording import plain
from metaopt.bench.measure.budget import Currency
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Cost, StudyEnd

RECORDS, CAMPAIGNS = "records", "campaigns"
LARGEST_FILE = 4_000_000  # bytes
LONGEST_TEXT = 1000  # characters of a text by the authors
_LONGEST_NAME = 100  # characters
_INNERMOST = 3  # depth of a campaign's studies in a file, which is the last to be laid out

_Name = Annotated[str, pydantic.Field(min_length=1, max_length=_LONGEST_NAME)]
_Number = Annotated[int, pydantic.Field(ge=1)]
_Count = Annotated[int, pydantic.Field(ge=0)]
_Text = Annotated[str, pydantic.Field(max_length=LONGEST_TEXT)]
_Folder = Annotated[str, pydantic.Field(pattern=r"^(submissions(/[A-Za-z0-9_-]+)+)?$")]


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StudyEntry(_Model):
    """One study. A cost is the lowest in each currency; ``None`` if the study missed its target."""

    study: _Number
    seed: int  # of its first trial; equal for all contenders of the campaign: that pairs them
    tuner_seed: int | None
    fixed_batch: int | None
    given: Cost | None
    including: Cost | None
    spent: Cost
    ended: StudyEnd
    trials: _Number
    failures: _Count
    best: float | None  # best validation metric
    # Of random search, whose trials may come in any order; None: another tuner, or an older entry.
    attempts: tuple[Attempt, ...] | None = None

    @pydantic.model_validator(mode="after")
    def _check_costs(self) -> "StudyEntry":
        for cost in (self.given, self.including, self.spent):
            if cost is None:
                continue
            if not all(value >= 0 and math.isfinite(value) for _, value in cost):
                raise ValueError("a cost must be finite and not negative")
        if (self.given is None) != (self.including is None):
            raise ValueError("a study reached its target given tuned and including tuning, or not")
        return self


class Verification(_Model):
    """The rerun that came to the same, see :mod:`analysis.checks.verification`."""

    hardware: str  # slugs
    commits: tuple[str, ...]
    first_day: str  # UTC
    last_day: str


class AuditEntry(_Model):
    """The audits of a contender on a workload; all of its studies together."""

    failed: bool
    findings: tuple[str, ...]  # with the numbers that were compared
    ratio: float | None  # counted over charged gradient evaluations, if above what is noted
    time_factor: float | None  # seconds per gradient evaluation over AdamW's


class Authorship(_Model):
    """The description of a submission by its authors, of ``submission_info.yml``, unchecked."""

    name: _Text = ""
    authors: _Text = ""
    affiliations: _Text = ""
    version: _Text = ""
    description: _Text = ""
    link: _Text = ""
    folder: _Folder = ""  # below the checkout; empty if the submission lay somewhere else


class CampaignEntry(_Model):
    """A contender's runs on a workload in one campaign."""

    seed: int  # the campaign's
    budget: BudgetRecord
    target: Target
    submission: str
    digest: str  # SHA-256 of what decides the result; in older entries of the submission's code
    workload_digest: str | None = None  # of workload, data, targets and settings; older: none
    space: str | None
    tuner: dict[str, Any] | None  # its name, version and every argument
    ruleset: Literal["external", "self-tuning"]
    fixed: dict[str, float | int | str | bool] | None  # hyperparameters that a variant fixes
    declared: bool  # the submission itself reports its gradient evaluations
    developed_here: bool = False  # the submission says that it was designed with this workload
    commits: tuple[str, ...]
    software: dict[str, str]
    command: str  # repeats these runs
    first_day: str  # on which a trial started, UTC
    last_day: str
    verified: Verification | None = None
    audit: AuditEntry | None = None  # None: not audited, as in older entries
    seconds_per_gradient: float | None = None  # without compilation; None in older entries
    about: Authorship | None = None  # None in older entries
    studies: Annotated[tuple[StudyEntry, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _check_studies(self) -> "CampaignEntry":
        found = [study.study for study in self.studies]
        if found != list(range(1, len(found) + 1)):
            raise ValueError(f"studies must be 1, 2, ..., without a gap, got {found}")
        return self

    def cell(self, currency: Currency) -> StudyCosts:
        """Return costs to target as the tables of a campaign have them."""
        known = self.budget.currency == currency
        return cell_of(
            [_amount(study.given, currency) for study in self.studies],
            [_amount(study.including, currency) for study in self.studies],
            [study.attempts for study in self.studies],
            currency,
            (self.budget.trial, self.budget.study) if known else (None, None),
        )


class Entry(_Model):
    """What one file holds."""

    schema_version: Literal[1] = 1
    contender: _Name
    workload: _Name
    hardware: Fingerprint
    campaigns: Annotated[dict[_Name, CampaignEntry], pydantic.Field(min_length=1)]

    @property
    def path(self) -> Path:
        """Where the file is, below the leaderboard's folder."""
        folder = Path(RECORDS) / self.hardware.slug / file_name(self.workload)
        return folder / f"{file_name(self.contender)}.json"


class Planned(pydantic.BaseModel):
    """The part of a campaign's file that pages need."""

    name: _Name
    workloads: tuple[_Name, ...] = ()


def file_name(name: str) -> str:
    """Return the file name for any name; different names have different ones.

    Examples:
        >>> file_name("adamw@paper+grid"), file_name("../up")
        ('adamw@paper+grid', '%2E.%2Fup')
    """
    encoded = quote(name, safe="@+=,")
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def entry_text(entry: Entry) -> str:
    """Return the file's content: keys sorted, one line a study, so that a change is one line."""
    return _layout(entry.model_dump(mode="json"), depth=0) + "\n"


def _layout(value: Any, depth: int) -> str:
    """Write JSON, one line for everything inside a campaign's fields."""
    inner = _INNERMOST - (not isinstance(value, list))
    if not isinstance(value, dict | list) or not value or depth > inner:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    if isinstance(value, dict):
        marks = "{}"
        items = [f"{json.dumps(k)}: {_layout(v, depth + 1)}" for k, v in sorted(value.items())]
    else:
        marks, items = "[]", [_layout(item, depth + 1) for item in value]
    start, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    return marks[0] + start + f",{start}".join(items) + end + marks[1]


def read_entries(board: Path) -> list[Entry]:
    """Read every record, in an order that does not depend on the file system.

    Raises:
        ValueError: A file is no record, or not where its content belongs; names file and rule.
    """
    root = board / RECORDS
    files = sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return [_read_entry(path, board) for path in files]


def read_planned(board: Path) -> dict[str, tuple[str, ...]]:
    """Return the workloads of each campaign by its file, also those that have not run.

    Raises:
        ValueError: A file is not a campaign's; the message names the file and the rule.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((board / CAMPAIGNS).glob("*")):
        where = _check_file(path, board, ".toml", "files of campaigns")
        campaign = read_campaign(path.read_bytes(), where)
        found[campaign.name] = (*found.get(campaign.name, ()), *campaign.workloads)
    return {name: tuple(dict.fromkeys(workloads)) for name, workloads in found.items()}


def read_campaign(content: bytes, where: str) -> Planned:
    """Return a campaign's name and workloads from the content of its file.

    Raises:
        ValueError: The content is not that of a campaign.
    """
    try:
        return Planned.model_validate(tomllib.loads(content.decode("utf-8")))
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: {_first_problem(error)}") from None
    except ValueError as error:  # of TOML or UTF-8
        raise ValueError(f"{where}: {plain(error)}") from None


def _first_problem(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{plain(key) or 'content'}: {plain(first['msg'])}"


def _check_file(path: Path, board: Path, ending: str, allowed: str) -> str:
    """Return the path of a regular file below the leaderboard."""
    where = plain(path.relative_to(board).as_posix())
    if path.is_symlink() or not path.is_file() or path.suffix != ending:
        raise ValueError(f"{where}: only {allowed}, regular files *{ending}, may lie there.")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{where}: {size:,} bytes, a file has at most {LARGEST_FILE:,}.")
    return where


def _read_entry(path: Path, board: Path) -> Entry:
    where = _check_file(path, board, ".json", "records")
    try:
        entry = Entry.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: {_first_problem(error)}") from None
    if board / entry.path != path:
        raise ValueError(f"{where}: its content belongs to {entry.path.as_posix()}.")
    return entry


def _amount(cost: Cost | None, currency: Currency) -> float:
    return math.inf if cost is None else float(cost.amount(currency))
