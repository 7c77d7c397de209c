"""Run the studies of a campaign on several processes of one machine, and resume it.

Studies are independent, so a table does not depend on how many processes ran it.
"""

import collections
import json
import os
import secrets
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from rich.console import Console

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from metaopt.bench.records.audit import AUDIT_FILE
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign, describe_changes, only_adds
from tuning.cores import available_cores, share_cores
from tuning.identities import Identities, check_folder, identify_campaign
from tuning.locks import hold
from tuning.progress import Tell, show_progress
from tuning.slots import LOCKS, LOGS, Slot, StudyError, StudyKey, campaign_currency

_LISTED = 5


class UnfinishedError(ValueError):
    """Some studies of a campaign could not go on; the others have come to their end.

    Attributes:
        finished: How many have.
    """

    def __init__(self, errors: Mapping[StudyKey, StudyError], finished: int) -> None:
        listed = "; ".join(f"{key}: {error}" for key, error in [*errors.items()][:_LISTED])
        more = f"; and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
        total = len(errors) + finished
        super().__init__(f"{len(errors)} of {total} studies could not go on: {listed}{more}")
        self.finished = finished


class Queue(Protocol):
    """Where the slots get their studies from, each in its own thread."""

    def take(self) -> StudyKey | None:
        """Return the next study; ``None`` when there is none left."""
        ...

    def done(self, key: StudyKey, record: StudyRecord) -> None:
        """Take the record of a study that has come to its end."""
        ...

    def failed(self, key: StudyKey, error: StudyError) -> None:
        """Take the error of a study that cannot go on."""
        ...

    def check(self) -> None:
        """Raise if work on what was taken must stop; called about twice a second."""
        ...

    def stop(self) -> None:
        """Let nobody wait in :meth:`take` any more."""
        ...


class LocalQueue:
    """The studies of a campaign that nobody else runs."""

    def __init__(self, studies: list[StudyKey]) -> None:
        self._left = collections.deque(studies)
        self.finished: dict[StudyKey, StudyRecord] = {}
        self.errors: dict[StudyKey, StudyError] = {}

    def take(self) -> StudyKey | None:
        """Return the next study; ``None`` when there is none left."""
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def done(self, key: StudyKey, record: StudyRecord) -> None:
        """Keep the record."""
        self.finished[key] = record

    def failed(self, key: StudyKey, error: StudyError) -> None:
        """Keep the error; the other studies go on."""
        self.errors[key] = error

    def check(self) -> None:
        """Raise nothing: whoever holds the folder's lock is alone."""

    def stop(self) -> None:
        """Empty the queue."""
        self._left.clear()


def run_campaign(
    campaign: Campaign, out: Path, *, workers: int | None = None, console: Console | None = None
) -> list[StudyRecord]:
    """Run every study of ``campaign`` that ``out`` does not hold yet.

    Args:
        campaign: What to run.
        out: Output folder; new, empty, or of the same campaign.
        workers: Processes; by default one for each core, and one if budgets are in seconds.
        console: Where progress bars go, if it is a terminal.

    Returns:
        The records of all studies, in the order of :func:`list_studies`.

    Raises:
        FileNotFoundError: The campaign needs data that is not there.
        ValueError: ``out`` holds something else, or runs of another version, or is in use; budgets
            in seconds with several workers.
        UnfinishedError: Some studies could not go on; raised when the others have ended.
    """
    studies = list_studies(campaign)
    workers = count_workers(campaign, workers, len(studies))
    check_data(campaign)
    with hold(out / LOCKS / "campaign.lock", f"Output folder {str(out)!r}"):
        identities = claim_folder(campaign, out, console)
        queue = LocalQueue(studies)
        with show_progress(len(studies), console) as tell:
            audited = choose_audited(studies, out)
            run_queue(queue, campaign, out, identities, workers, tell, audited)
    if queue.errors:
        raise UnfinishedError(queue.errors, len(queue.finished))
    return [queue.finished[key] for key in studies]


def list_studies(campaign: Campaign) -> list[StudyKey]:
    """Return the studies, those that share compiled functions beside each other."""
    return [
        StudyKey(contender, workload, study)
        for workload in campaign.workloads
        for contender in sorted(campaign.contenders_by_name)
        for study in range(1, campaign.studies + 1)
    ]


def choose_audited(studies: list[StudyKey], out: Path) -> set[StudyKey]:
    """Draw one unfinished study for every contender and workload that has no audit yet."""
    pairs: dict[tuple[str, str], list[StudyKey]] = {}
    for key in studies:
        pairs.setdefault((key.contender, key.workload), []).append(key)
    chosen = set()
    for keys in pairs.values():
        folders = [key.folder(out) for key in keys]
        left = [key for key in keys if not (key.folder(out) / records.STUDY_FILE).exists()]
        if left and not any(f for folder in folders for f in folder.glob(f"trial_*/{AUDIT_FILE}")):
            chosen.add(secrets.choice(left))  # the operating system's entropy
    return chosen


def check_data(campaign: Campaign) -> None:
    """Say what is missing before anything runs.

    Raises:
        FileNotFoundError: Data of a workload.
        ValueError: The target of one.
    """
    for name in campaign.workloads:
        campaign.targets_on(get_workload(name))
        get_workload(name).check_data()


def claim_folder(campaign: Campaign, out: Path, console: Console | None = None) -> Identities:
    """Write ``campaign.json`` into ``out``, or see that it is the same campaign's or a part of it.

    Args:
        campaign: The campaign.
        out: Its output folder.
        console: Where notes on finished contenders go that have changed since.

    Returns:
        What decides the studies.

    Raises:
        ValueError: The folder holds something else, or another campaign, or runs of another version
            that what is left to run would mix with; shows the difference.
    """
    path = out / records.CAMPAIGN_FILE
    content = {"schema_version": records.SCHEMA_VERSION, "currency": campaign_currency(campaign)}
    content |= campaign.model_dump(mode="json") | {"contenders": list(campaign.contenders_by_name)}
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        before.pop("source", None)  # its comments, for example, may differ
        changed = describe_changes(before, content)
        if changed and not only_adds(before, content):
            raise ValueError(
                f"{out} holds another campaign ({changed}). Use another output folder, or the "
                "campaign as it was, with more contenders, workloads or studies at most."
            )
    elif (out / LOGS).exists():
        raise ValueError(f"{out} holds runs of no campaign; use another output folder.")
    identities = identify_campaign(campaign)
    studies = [((key.contender, key.workload), key.folder(out)) for key in list_studies(campaign)]
    for note in check_folder(out, studies, identities):
        if console is not None:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    source = {"source": campaign.source.model_dump(mode="json")} if campaign.source else {}
    records.write_json(path, content | source)
    return identities


def check_budgets(studies: list[StudyRecord]) -> None:
    """Assert that spent budgets are equal to within one evaluation period, or one step.

    Studies that ended early for the two allowed reasons, and those whose trials all failed at no
    cost, are left out: their records say so.

    Raises:
        ValueError: A budget was missed, which is a defect of the referee; names the study.
    """
    for study in studies:
        if study.ended != "budget":
            continue
        spent, limits = study.spent.amount(study.budget.currency), study.budget
        if abs(spent - limits.study) > study.tolerance:
            raise ValueError(
                f"{study.contender} on {study.workload}, study {study.study}, spent {spent:g} of "
                f"{limits.study:g} {limits.currency}: more than one evaluation period or step "
                f"({study.tolerance:g}) from its budget."
            )


def count_workers(campaign: Campaign, workers: int | None, studies: int) -> int:
    """Return how many processes run a campaign's studies.

    Raises:
        ValueError: Fewer than one, or several for budgets in seconds.
    """
    in_seconds = campaign_currency(campaign) == "seconds"
    if in_seconds and workers not in (None, 1):
        raise ValueError(
            f"Budgets in seconds run one study at a time, got --workers {workers}: "
            "studies side by side would take each other's time."
        )
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}.")
    return (
        1 if in_seconds else min(workers or len(available_cores()) or os.cpu_count() or 1, studies)
    )


def run_queue(
    queue: Queue,
    campaign: Campaign,
    out: Path,
    identities: Identities,
    workers: int,
    tell: Tell,
    audited: set[StudyKey] | None = None,
) -> None:
    """Run the queue's studies, ``workers`` at a time, until there is none left.

    Each worker keeps to its share of the cores. A study that cannot go on ends alone. Any other
    error ends all processes: their studies continue from their checkpoints when the campaign is run
    again. One trial of each study in ``audited`` is audited; without it, of every study.
    """
    shares = share_cores(available_cores(), workers)
    slots = [Slot(campaign, out, identities, cores) for cores in shares]

    def work(slot: Slot) -> None:
        while (key := queue.take()) is not None:

            def on_progress(share: float, key: StudyKey = key) -> None:
                queue.check()
                tell(key, share)

            try:
                record = slot.run(key, on_progress, audited is None or key in audited)
            except StudyError as error:
                queue.failed(key, error)
            else:
                queue.done(key, record)
            tell(key, 1.0)

    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(work, slot) for slot in slots]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            queue.stop()
            for slot in slots:
                slot.kill()
