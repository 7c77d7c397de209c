"""Processes that run one study after another; one that dies by itself is replaced.

The processes are reused: what one compiled for a study it has for the next. They die with their
parent. A trial whose process dies twice has failed: a fault in compiled code, or no memory. A trial
that does not return ends its process, and the next process records it as stalled, see
metaopt.bench.trial.stalls.
"""

import dataclasses
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from metaopt.bench.records.audit import fail_open_audits
from metaopt.bench.records.failures import describe
from metaopt.bench.records.identity import Identity, listed
from metaopt.bench.records.redaction import redact
from metaopt.bench.trial.progress import FILE as PROGRESS_FILE
from metaopt.bench.trial.progress import mark_died
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign, make_campaign
from tuning.cores import keep_to
from tuning.identities import Identities, changed_names, identify, identify_campaign
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
        identities: What decides the studies.
        cores: Of the process, see :func:`~tuning.cores.share_cores`.
    """

    def __init__(
        self, campaign: Campaign, out: Path, identities: Identities, cores: Sequence[int] = ()
    ) -> None:
        self._identities = identities
        self._cores = cores
        self._document = campaign.model_dump(mode="json")
        self._out = out
        # Where seconds are the budget, every study compiles for itself: a process that has compiled
        # for another contender would give it time.
        self._reused = campaign_currency(campaign) != "seconds"
        self._process: Any = None
        self._connection: Connection | None = None

    def run(
        self, key: StudyKey, on_progress: Callable[[float], None], audited: bool = False
    ) -> StudyRecord:
        """Run a study to its end, however many processes it takes; one at a time.

        Args:
            key: The study.
            on_progress: Told the share of the budget that is spent.
            audited: Whether one of its trials is audited.

        Raises:
            StudyError: The study cannot go on, or its process died twice outside of any trial.
            RuntimeError: Its process was killed by :meth:`kill`.
        """
        before: Any = None
        try:
            while True:
                try:
                    return self._run(key, on_progress, audited)
                except EOFError:
                    before = self._after_death(key, before)
                    fail_open_audits(key.folder(self._out))
        finally:
            if not self._reused:
                self.kill()

    def kill(self) -> None:
        """End the process at once; what it was at work on goes on from its checkpoint later."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()

    def _run(
        self, key: StudyKey, on_progress: Callable[[float], None], audited: bool
    ) -> StudyRecord:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            arguments = theirs, self._document, self._identities, self._cores
            self._process = context.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
        connection = self._connection
        assert connection is not None
        try:
            connection.send((str(self._out), key, audited))
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


def plan_study(campaign: Campaign, key: StudyKey, identity: Identity | None = None) -> StudyPlan:
    """Return what one study of a campaign runs, by default as its files are now."""
    workload, contender = get_workload(key.workload), campaign.contenders_by_name[key.contender]
    target, test_target = targets = campaign.targets_on(workload)
    return StudyPlan(
        campaign=campaign.name,
        campaign_seed=campaign.seed,
        contender=contender,
        workload=workload,
        study=key.study,
        limits=campaign.limits(workload),
        target=target,
        test_target=test_target,
        stop_at_target=campaign.stop_at_target,
        identity=identify(contender, workload, targets) if identity is None else identity,
    )


# In the processes.


def _serve(
    connection: Connection,
    document: dict[str, Any],
    identities: Identities,
    cores: Sequence[int],
) -> None:
    """Run the studies that are asked for, until the parent is gone."""
    keep_to(cores)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        parent.join()
        os._exit(1)  # also out of compiled code

    threading.Thread(target=die_with_parent, daemon=True).start()
    campaign: Campaign | None = None
    while True:
        out, key, audited = connection.recv()
        try:
            campaign = campaign or _load(document, identities)
            plan = plan_study(campaign, key, identities[key.contender, key.workload])
            plan = dataclasses.replace(plan, audited=audited)
            record = _run_one(plan, campaign.stall_seconds, Path(out), key, connection)
        except (ValueError, OSError) as error:
            connection.send(("error", str(error)))
        except Exception as error:  # a defect, of ours or of a tuner: show where
            print(redact(traceback.format_exc()), file=sys.stderr, flush=True)
            connection.send(("error", describe(error)))
        else:
            connection.send(("record", record))


def _load(document: dict[str, Any], identities: Identities) -> Campaign:
    """Return the campaign, with its code loaded in this process: that which the parent saw."""
    campaign = make_campaign(document, "campaign")
    if names := changed_names(identities, identify_campaign(campaign)):
        raise ValueError(
            f"{listed(names)} changed while the campaign ran. Restore it, or use another output "
            "folder; then run the same command again."
        )
    return campaign


def _run_one(
    plan: StudyPlan, stall_seconds: float, out: Path, key: StudyKey, connection: Connection
) -> StudyRecord:
    lock = out / LOCKS / f"{key.contender}-{key.workload}-{key.study}.lock"
    with hold(lock, f"The study {key}", wait_seconds=_LOCK_SECONDS):
        return run_study(
            plan,
            out / LOGS,
            on_progress=lambda share: connection.send(("progress", share)),
            stall_seconds=stall_seconds,
        )
