"""Processes that run one study after another; one that dies by itself is replaced.

The processes are reused: what one compiled for a study it has for the next. They die with their
parent. A trial whose process dies twice has failed: a fault in compiled code, or no memory. (One
that does not return is recorded by its process, which then ends: see metaopt.bench.stalls.)
"""

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from metaopt.bench import records
from metaopt.bench.failures import describe
from metaopt.bench.progress import FILE as PROGRESS_FILE
from metaopt.bench.progress import mark_died
from metaopt.bench.records import StudyRecord
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign, make_campaign
from tuning.cores import keep_to
from tuning.locks import hold
from tuning.study import StudyPlan, run_study

LOGS = "logs"
LOCKS = ".locks"
_LOCK_SECONDS = 10.0  # for the processes of a killed campaign to be gone


class StudyError(ValueError):
    """A study cannot go on; what it has finished is kept."""


class StudyKey(NamedTuple):
    """Names one study of a campaign."""

    contender: str
    workload: str
    study: int

    def __str__(self) -> str:
        return f"{self.contender} on {self.workload}, study {self.study}"

    def folder(self, out: Path) -> Path:
        """Return where its trials are."""
        return records.study_directory(out / LOGS, self.contender, self.study, self.workload)


class Slot:
    """A place for one study at a time, in a process of its own.

    Args:
        campaign: Whose studies these are.
        out: Output folder.
        cores: Of the process, see :func:`~tuning.cores.share_cores`.
    """

    def __init__(self, campaign: Campaign, out: Path, cores: Sequence[int] = ()) -> None:
        self._cores = cores
        self._document = campaign.model_dump(mode="json")
        self._out = out
        # Where seconds are the budget, every study compiles for itself: a process that has compiled
        # for another contender would give it time.
        self._reused = campaign_currency(campaign) != "seconds"
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, key: StudyKey, on_progress: Callable[[float], None]) -> StudyRecord:
        """Run a study to its end, however many processes it takes; one at a time.

        Args:
            key: The study.
            on_progress: Told the share of the budget that is spent.

        Raises:
            StudyError: The study cannot go on, or its process died twice outside of any trial.
            RuntimeError: Its process was killed by :meth:`kill`.
        """
        before: Any = None
        try:
            while True:
                try:
                    return self._run(key, on_progress)
                except EOFError:
                    before = self._after_death(key, before)
        finally:
            if not self._reused:
                self.kill()

    def kill(self) -> None:
        """End the process at once; what it was at work on goes on from its checkpoint later."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()

    def _run(self, key: StudyKey, on_progress: Callable[[float], None]) -> StudyRecord:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._cores), daemon=True)
            self._process.start()
            theirs.close()
        connection = self._connection
        assert connection is not None
        try:
            connection.send((self._document, str(self._out), key))
            while True:
                kind, content = connection.recv()
                if kind == "record":
                    return content
                if kind == "error":
                    raise StudyError(content)
                on_progress(content)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def _after_death(self, key: StudyKey, before: Any) -> Any:
        """Blame the trial at work if its process died before; return what stands now."""
        if self._process is None:
            raise RuntimeError(f"The process of {key} was killed.")
        self.kill()
        folder = key.folder(self._out)
        at_work = sorted(folder.glob(f"trial_*/{PROGRESS_FILE}"))
        stands = at_work, len([*folder.glob(f"trial_*/{records.RUN_FILE}")])
        if stands != before:
            return stands
        if not at_work:
            raise StudyError(
                "The process died twice outside of any trial (out of memory?). What is finished "
                "is kept: run the same command again to go on."
            )
        for path in at_work:
            mark_died(path.parent)
        return None


def campaign_currency(campaign: Campaign) -> str:
    """Return the currency of a campaign's budgets."""
    return campaign.limits(get_workload(campaign.workloads[0])).currency


def plan_study(campaign: Campaign, key: StudyKey) -> StudyPlan:
    """Return what one study of a campaign runs."""
    workload = get_workload(key.workload)
    target, test_target = campaign.targets_on(workload)
    return StudyPlan(
        campaign=campaign.name,
        campaign_seed=campaign.seed,
        contender=campaign.parsed()[key.contender],
        workload=workload,
        study=key.study,
        limits=campaign.limits(workload),
        target=target,
        test_target=test_target,
        stop_at_target=campaign.stop_at_target,
        together=campaign.together,
    )


# In the processes.


def _serve(connection: Connection, cores: Sequence[int]) -> None:
    """Run the studies that are asked for, until the parent is gone."""
    keep_to(cores)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        parent.join()
        os._exit(1)  # also out of compiled code

    threading.Thread(target=die_with_parent, daemon=True).start()
    while True:
        document, out, key = connection.recv()
        try:
            record = _run_one(document, Path(out), key, connection)
        except (ValueError, OSError) as error:
            connection.send(("error", str(error)))
        except Exception as error:  # a defect, of ours or of a tuner: show where
            traceback.print_exc()
            connection.send(("error", describe(error)))
        else:
            connection.send(("record", record))


def _run_one(
    document: dict[str, Any], out: Path, key: StudyKey, connection: Connection
) -> StudyRecord:
    campaign = make_campaign(document, "campaign")
    plan = plan_study(campaign, key)
    lock = out / LOCKS / f"{key.contender}-{key.workload}-{key.study}.lock"
    with hold(lock, f"The study {key}", wait_seconds=_LOCK_SECONDS):
        return run_study(
            plan,
            out / LOGS,
            on_progress=lambda share: connection.send(("progress", share)),
            stall_seconds=campaign.stall_seconds,
        )
