"""Run the studies of a campaign, and resume it.

Studies are independent, so a table does not depend on where or in which order they ran.
"""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from tuning.campaign import Campaign
from tuning.campaign_folder import check_data, choose_audited, claim_folder
from tuning.cluster import Resources, connected
from tuning.identities import Identities
from tuning.locks import hold
from tuning.progress import Tell, show_progress
from tuning.slot import Job, checkout_commit, compiled_programs_kept, failed, run_one
from tuning.studies import LOCKS, StudyKey, campaign_currency, list_studies

_LISTED = 5


class UnfinishedError(ValueError):
    """Some studies of a campaign could not continue; the others have ended.

    Attributes:
        finished: The number of the others.
    """

    def __init__(self, errors: Mapping[StudyKey, str], finished: int) -> None:
        listed = "; ".join(f"{key}: {error}" for key, error in [*errors.items()][:_LISTED])
        more = f"; and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
        total = len(errors) + finished
        super().__init__(f"{len(errors)} of {total} studies could not go on: {listed}{more}")
        self.finished = finished


def run_campaign(
    campaign: Campaign,
    out: Path,
    *,
    resources: Resources | None = None,
    console: Console | None = None,
) -> list[StudyRecord]:
    """Run every study of ``campaign`` that ``out`` does not hold yet.

    Args:
        campaign: The campaign.
        out: Output folder; new, empty, or of the same campaign.
        resources: Where studies run on Ray; ``None`` runs them in this process, one after another.
        console: Shows progress bars if it is a terminal, otherwise a line for each finished study.

    Returns:
        The records of all studies, in the order of :func:`~tuning.studies.list_studies`.

    Raises:
        FileNotFoundError: The campaign needs data that is missing.
        ValueError: ``out`` holds something else, or runs of another version, or is in use; or the
            studies cannot run on Ray, see :class:`~tuning.engine.Driver`.
        UnfinishedError: Some studies could not continue; raised when the others have ended.
    """
    studies = list_studies(campaign)
    check_data(campaign)
    with hold(out / LOCKS / "campaign.lock", f"Output folder {str(out)!r}"):
        identities = claim_folder(campaign, out, console)
        audited = choose_audited(studies, out)
        finished = {
            key: records.read_study(path)
            for key in studies
            if (path := key.folder(out) / records.STUDY_FILE).exists()
        }
        left = [key for key in studies if key not in finished]
        with show_progress(len(studies), len(finished), console) as tell:
            if resources is None:
                found, errors = run_in_process(campaign, out, identities, left, audited, tell)
            elif left:
                found, errors = _run_on_ray(
                    campaign, out, identities, left, audited, resources, tell, console
                )
            else:
                found, errors = {}, {}
    finished |= found
    if errors:
        raise UnfinishedError(errors, len(finished))
    return [finished[key] for key in studies]


def run_in_process(
    campaign: Campaign,
    out: Path,
    identities: Identities,
    studies: list[StudyKey],
    audited: set[StudyKey],
    tell: Tell,
) -> tuple[dict[StudyKey, StudyRecord], dict[StudyKey, str]]:
    """Run studies in this process, one after another; return the records and the errors."""
    finished, errors = {}, {}
    with compiled_programs_kept(campaign, out):
        for key in studies:
            try:
                finished[key] = run_one(
                    campaign, identities, key, out, key in audited,
                    lambda share, key=key: tell(key, min(share, 0.999)),
                )  # fmt: skip
            except Exception as error:
                outcome = failed(error)
                if outcome.refusal is not None:
                    raise
                errors[key] = outcome.error or ""
                _show_trace(outcome.trace)
            tell(key, 1.0)
    return finished, errors


def _run_on_ray(
    campaign: Campaign,
    out: Path,
    identities: Identities,
    studies: list[StudyKey],
    audited: set[StudyKey],
    resources: Resources,
    tell: Tell,
    console: Console | None,
) -> tuple[dict[StudyKey, StudyRecord], dict[StudyKey, str]]:
    def note(line: str) -> None:
        if console is not None:
            console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)

    with connected(resources) as dashboard:
        from tuning.engine import Driver  # imports Ray, which reads settings of `connected`

        if resources.dashboard:
            note(f"Ray's dashboard: {dashboard}")

        driver = Driver(
            Job(
                campaign.model_dump(mode="json"),
                identities,
                out.resolve(),
                commit=checkout_commit(),
            ),
            studies,
            audited,
            resources,
            one_per_machine=campaign_currency(campaign) == "seconds",
            tell=tell,
            note=note,
        )
        driver.run()
    for trace in driver.traces:
        _show_trace(trace)
    return driver.finished, driver.errors


def has_ray() -> bool:
    """Return whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def _show_trace(trace: str | None) -> None:
    if trace is not None:
        print(trace, file=sys.stderr, flush=True)


def check_budgets(studies: list[StudyRecord]) -> None:
    """Assert that spent budgets are equal to within one evaluation period, or one step.

    Studies that ended early are left out: their records say why.

    Raises:
        ValueError: A budget was missed, which is a defect of the referee; names the study.
    """
    for study in studies:
        if study.ended == "budget" and not study.spent_all:
            spent, limits = study.spent.amount(study.budget.currency), study.budget
            raise ValueError(
                f"{study.contender} on {study.workload}, study {study.study}, spent {spent:g} of "
                f"{limits.study:g} {limits.currency}: more than one evaluation period or step "
                f"({study.tolerance:g}) from its budget."
            )
