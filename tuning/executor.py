"""Run the studies of a campaign on several processes of one machine, and resume it.

Studies are independent, so a table does not depend on how many processes ran it. The processes are
reused: what one compiled for a study it has for the next. They die with their parent.

When one of them dies by itself, the studies that were at work go on, each in a process of its own.
A trial whose process dies there as well has failed: a fault in compiled code, or no memory. (One
that does not return is recorded by its process, which then ends: see metaopt.bench.stalls.)
"""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from metaopt.bench.runner import PROGRESS_FILE, mark_died
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign, make_campaign
from tuning.locks import hold
from tuning.study import StudyPlan, run_study

LOGS = "logs"
_LOCKS = ".locks"
_LISTENER_SECONDS = 2.0  # for the last messages to be shown
_LOCK_SECONDS = 10.0  # for the processes of a killed campaign to be gone


class StudyKey(NamedTuple):
    """Names one study of a campaign."""

    contender: str
    workload: str
    study: int

    def __str__(self) -> str:
        return f"{self.contender} on {self.workload}, study {self.study}"


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
        ValueError: ``out`` holds something else or is in use; budgets in seconds with several
            workers.
    """
    studies = list_studies(campaign)
    workers = _count_workers(campaign, workers, len(studies))
    for name in campaign.workloads:  # what is missing is said before anything runs
        campaign.targets_on(get_workload(name))
        get_workload(name).check_data()
    with hold(out / _LOCKS / "campaign.lock", f"Output folder {str(out)!r}"):
        claim_folder(campaign, out)
        finished = _run_studies(campaign, out, studies, workers, console)
    return [finished[key] for key in studies]


def list_studies(campaign: Campaign) -> list[StudyKey]:
    """Return the studies, those that share compiled functions beside each other."""
    return [
        StudyKey(contender, workload, study)
        for workload in campaign.workloads
        for contender in sorted(campaign.parsed())
        for study in range(1, campaign.studies + 1)
    ]


def claim_folder(campaign: Campaign, out: Path) -> None:
    """Write ``campaign.json`` into ``out``, or see that it is the same campaign's.

    Raises:
        ValueError: The folder holds something else, or another campaign; shows the difference.
    """
    path = out / records.CAMPAIGN_FILE
    currency = campaign.limits(get_workload(campaign.workloads[0])).currency
    content = {"schema_version": records.SCHEMA_VERSION, "currency": currency}
    content |= campaign.model_dump(mode="json") | {"contenders": list(campaign.parsed())}
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        changed = [
            f"{key}: {before.get(key)!r} there, {content.get(key)!r} now"
            for key in sorted(before.keys() | content.keys())
            if before.get(key) != content.get(key)
        ]
        if changed:
            raise ValueError(
                f"{out} holds another campaign ({'; '.join(changed)}). "
                "Use another output folder, or the campaign as it was."
            )
        return
    if (out / LOGS).exists():
        raise ValueError(f"{out} holds runs of no campaign; use another output folder.")
    records.write_json(path, content)


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


def _count_workers(campaign: Campaign, workers: int | None, studies: int) -> int:
    in_seconds = campaign.limits(get_workload(campaign.workloads[0])).currency == "seconds"
    if in_seconds and workers not in (None, 1):
        raise ValueError(
            f"Budgets in seconds run one study at a time, got --workers {workers}: "
            "studies side by side would take each other's time."
        )
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}.")
    return 1 if in_seconds else min(workers or os.cpu_count() or 1, studies)


def _run_studies(
    campaign: Campaign,
    out: Path,
    studies: list[StudyKey],
    workers: int,
    console: Console | None,
) -> dict[StudyKey, StudyRecord]:
    messages = multiprocessing.get_context("spawn").Queue()
    # A process that died may have held the queue's lock: nobody waits for it at the end.
    messages.cancel_join_thread()
    finished: dict[StudyKey, StudyRecord] = {}
    with _show_progress(studies, messages, console) as tell:

        def run(keys: list[StudyKey], processes: int) -> bool:
            """Run studies; return whether all came to their end, and no process died."""
            pool = _make_pool(campaign, processes, messages)
            document = campaign.model_dump(mode="json")
            try:
                futures = {pool.submit(_run_one, document, str(out), key): key for key in keys}
                for future in as_completed(futures):
                    finished[futures[future]] = future.result()
                    tell(futures[future], 1.0)
            except BrokenProcessPool:
                return False
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            return True

        while not run([key for key in studies if key not in finished], workers):
            for key in studies:
                at_work = key not in finished and _folder(out, key).exists()
                while at_work and not run([key], 1):
                    _blame_trial(out, key)
    return finished


def _make_pool(campaign: Campaign, processes: int, messages: Any) -> ProcessPoolExecutor:
    # Where seconds are the budget, every study compiles for itself: a process that has compiled for
    # another contender would give it time.
    in_seconds = campaign.limits(get_workload(campaign.workloads[0])).currency == "seconds"
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        processes,
        context,
        _start_worker,
        (messages,),
        max_tasks_per_child=1 if in_seconds else None,
    )


def _folder(out: Path, key: StudyKey) -> Path:
    return records.study_directory(out / LOGS, key.contender, key.study, key.workload)


def _blame_trial(out: Path, key: StudyKey) -> None:
    """Leave word that the trial at work killed its process, for the study to count it as failed."""
    unfinished = [*_folder(out, key).glob(f"trial_*/{PROGRESS_FILE}")]
    if not unfinished:
        raise ValueError(
            f"The process of {key} died outside of any trial (out of memory?). What is finished "
            "is kept: run the same command again to go on."
        )
    for path in unfinished:
        mark_died(path.parent)


# In the worker processes.

_messages: Any = None


def _start_worker(messages: Any) -> None:
    global _messages
    _messages = messages
    messages.cancel_join_thread()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        parent.join()
        os._exit(1)  # also out of compiled code

    threading.Thread(target=die_with_parent, daemon=True).start()


def _run_one(document: dict[str, Any], out: str, name: StudyKey) -> StudyRecord:
    campaign = make_campaign(document, "campaign")
    workload = get_workload(name.workload)
    target, test_target = campaign.targets_on(workload)
    plan = StudyPlan(
        campaign=campaign.name,
        campaign_seed=campaign.seed,
        contender=campaign.parsed()[name.contender],
        workload=workload,
        study=name.study,
        limits=campaign.limits(workload),
        target=target,
        test_target=test_target,
        stop_at_target=campaign.stop_at_target,
    )
    lock = Path(out) / _LOCKS / f"{name.contender}-{name.workload}-{name.study}.lock"
    with hold(lock, f"The study {name}", wait_seconds=_LOCK_SECONDS):
        return run_study(
            plan,
            Path(out) / LOGS,
            on_progress=lambda share: _messages.put((name, share)),
            stall_seconds=campaign.stall_seconds,
        )


@contextmanager
def _show_progress(
    studies: list[StudyKey], messages: Any, console: Console | None
) -> Iterator[Callable[[StudyKey, float], None]]:
    """Show one bar for the campaign and one for each study at work; quiet off a terminal."""
    shown = console is not None and console.is_terminal
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not shown,
        transient=True,
    )
    total = progress.add_task(f"{len(studies)} studies", total=float(len(studies)))
    shares: dict[StudyKey, float] = {}
    tasks: dict[StudyKey, Any] = {}
    lock = threading.Lock()

    def tell(key: StudyKey, share: float) -> None:
        with lock:
            shares[key] = max(share, shares.get(key, 0.0))
            progress.update(total, completed=sum(shares.values()))
            if shares[key] >= 1.0:
                if key in tasks:
                    progress.remove_task(tasks.pop(key))
            elif key in tasks:
                progress.update(tasks[key], completed=share)
            else:
                tasks[key] = progress.add_task(f"  {key}", total=1.0)
                progress.update(tasks[key], completed=share)

    def listen() -> None:
        while (message := messages.get()) is not None:
            key, share = message
            tell(key, share)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        with progress:
            yield tell
    finally:
        messages.put(None)
        listener.join(timeout=_LISTENER_SECONDS)
