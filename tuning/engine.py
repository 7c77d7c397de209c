"""Run studies on Ray, on one machine or many: an actor is a slot, the driver holds the queue.

The records and checkpoints on disk are the only truth. If a process or a machine dies, its study
goes back into the queue and continues from its last checkpoint, to the same numbers.
"""

import collections
import contextlib
import dataclasses
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from metaopt.bench.records.audit import fail_open_audits
from metaopt.bench.trial.progress import FILE as PROGRESS_FILE
from metaopt.bench.trial.progress import mark_died
from tuning.cluster import Resources, alive_nodes, first_line, on_node, studies_on_gpus
from tuning.cores import available_cores
from tuning.slot import DeviceError, Job, Outcome, Slot, pack, position, unpack
from tuning.studies import LOCKS, StudyKey

_POLL_SECONDS = 0.5
_COPY_SECONDS = 10.0  # between copies of a study at work on another disk
_NODE_SECONDS = 15.0  # until Ray has noticed that a machine is gone
_ANSWER_SECONDS = 5.0  # for a machine that is there to start a process
_PATIENCE_SECONDS = 60.0  # without any slot, until the user is told
_STARTS = 3  # of a machine's processes that die before they run anything


@dataclasses.dataclass
class _Busy:
    """An actor, and what it is at work on; ``key`` is ``None`` until it is prepared."""

    actor: Any
    node: str
    work: Any  # the reference of its result
    key: StudyKey | None = None
    shared: bool = True
    since: float = 0.0  # when the study began, or was copied last
    progress: Any = None  # the reference of its answer
    copied: tuple[Any, ...] = ()
    compiled: frozenset[tuple[str, str]] = frozenset()  # contenders and workloads it has run


class Driver:
    """Hands studies to slots until all have ended.

    Args:
        job: The campaign; its token and its slots' resources are set here.
        studies: The studies.
        audited: Those of which a trial is audited.
        resources: Of each study.
        one_per_machine: Whether studies would disturb each other on one machine, because their
            budgets are in seconds. Then each also has a process of its own, which has compiled
            nothing before.
        tell: Called with a study and the spent share of its budget.
        note: Called with a line for the user.

    Raises:
        ValueError: No machine has the resources.
    """

    def __init__(
        self,
        job: Job,
        studies: list[StudyKey],
        audited: set[StudyKey],
        resources: Resources,
        *,
        one_per_machine: bool,
        tell: Callable[[StudyKey, float], None],
        note: Callable[[str], None],
    ) -> None:
        self._queue = collections.deque(studies)
        self._audited = audited
        self._one_per_machine = one_per_machine
        self._tell = tell
        self._note = note
        self._busy: list[_Busy] = []
        self._refused: dict[str, str] = {}  # by node
        self._failed_starts: collections.Counter[str] = collections.Counter()
        self._deaths: dict[StudyKey, list[Any]] = {}  # of its processes: where the study stood
        self._lost: dict[StudyKey, float] = collections.defaultdict(float)  # seconds
        self._idle_since = time.monotonic()
        self.finished: dict[StudyKey, StudyRecord] = {}
        self.errors: dict[StudyKey, str] = {}
        self.traces: list[str] = []
        job = dataclasses.replace(job, token=secrets.token_hex(16))
        self._job = self._with_resources(job, resources)

    def run(self) -> None:
        """Run until every study has ended.

        Raises:
            DeviceError: A slot did not get its GPUs.
            ValueError: No machine can run a study.
        """
        mark = self._job.out / self._job.mark
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(self._job.token, "utf-8")
        try:
            while self._queue or self._busy:
                self._open_slots()
                refs = [busy.work for busy in self._busy]
                done, _ = ray.wait(refs, num_returns=1, timeout=_POLL_SECONDS)
                for busy in [busy for busy in self._busy if busy.work in done]:
                    self._take(busy)
                self._ask_progress()
        finally:
            for busy in self._busy:
                ray.kill(busy.actor)
            _clean(self._job)

    def _with_resources(self, job: Job, resources: Resources) -> Job:
        """Return the job with the cores and GPUs of each slot.

        Raises:
            ValueError: No machine has as many.
        """
        nodes = [node["Resources"] for node in alive_nodes()]
        gpus = resources.gpus
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        most = max(node.get("GPU", 0) for node in nodes)
        if most < gpus:
            raise ValueError(
                f"--gpus-per-study is {gpus:g}, but no machine has more than {most:g} GPUs."
            )
        fit = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
        cores = int(min((node["CPU"] for node in fit), default=1))
        if resources.cpus is not None:
            cpus = resources.cpus
        elif self._one_per_machine or not fit:
            cpus = cores
        else:
            at_once = -(-len(self._queue) // len(fit))
            if gpus:
                at_once = min(at_once, *(studies_on_gpus(node["GPU"], gpus) for node in fit))
            cpus = max(1, cores // at_once)
        if fit and all(node["CPU"] < cpus for node in fit):
            raise ValueError(
                f"--cpus-per-study is {cpus}, but no machine has more than "
                f"{max(node['CPU'] for node in fit):g} cores."
            )
        return dataclasses.replace(job, cpus=cpus, gpus=gpus)

    def _room(self, node: dict[str, Any]) -> int:
        """Return how many studies a machine can run at once."""
        found, job = node["Resources"], self._job
        room = int(found.get("CPU", 0) // job.cpus)
        if job.gpus:
            room = min(room, studies_on_gpus(found.get("GPU", 0), job.gpus))
        return min(room, 1) if self._one_per_machine else room

    def _open_slots(self) -> None:
        """Start slots on machines with room, as many as there are studies for them."""
        nodes = {
            node["NodeID"]: node for node in alive_nodes() if node["NodeID"] not in self._refused
        }
        if self._one_per_machine:  # Ray may count a machine twice
            ordered = sorted(nodes.values(), key=lambda node: node["NodeID"])
            nodes = {node["NodeManagerHostname"]: node for node in ordered}
            nodes = {node["NodeID"]: node for node in nodes.values()}
        if not self._busy and not any(map(self._room, nodes.values())):
            self._give_up_without(nodes)
        waiting = len(self._queue) - sum(busy.key is None for busy in self._busy)
        used = collections.Counter(busy.node for busy in self._busy)
        while waiting > 0:
            free = {name: self._room(node) - used[name] for name, node in nodes.items()}
            name = max(free, key=lambda name: free[name], default="")
            if not name or free[name] <= 0:
                break
            actor: Any = ray.remote(Slot).options(
                max_concurrency=2,  # a study, and questions about it
                num_cpus=self._job.cpus,
                num_gpus=self._job.gpus,
                scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            )
            actor = actor.remote(self._job)
            self._busy.append(_Busy(actor, name, actor.prepare.remote()))
            used[name] += 1
            waiting -= 1

    def _give_up_without(self, nodes: dict[str, Any]) -> None:
        """Stop if all machines are refused; say so if there is none yet."""
        if self._refused and not nodes:
            raise ValueError(
                f"No machine can run the campaign: {'; '.join(self._refused.values())}."
            )
        if time.monotonic() - self._idle_since > _PATIENCE_SECONDS:
            self._idle_since = time.monotonic()
            self._note("no machine of the cluster has room for a study; waiting for one.")
        time.sleep(_POLL_SECONDS)

    def _take(self, busy: _Busy) -> None:
        """Take what a slot returned, and give it the next study."""
        self._busy.remove(busy)
        try:
            result: Any = ray.get(busy.work)
        except RayTaskError as error:
            cause = error.as_instanceof_cause()
            if isinstance(cause, DeviceError):
                raise DeviceError(str(cause.args[0] if cause.args else cause)) from None
            raise
        except RayError as error:  # its process or its machine has died
            self._after_death(busy, error)
            return
        self._idle_since = time.monotonic()
        if busy.key is None:
            refusal, busy.shared = result
        else:
            refusal = self._end(busy, result)
            if self._one_per_machine:
                ray.kill(busy.actor)
                return
        if refusal is not None:
            self._refuse(busy.node, refusal)
        if refusal is not None or not self._queue:
            ray.kill(busy.actor)
        else:
            self._start(busy, self._next(busy.compiled))

    def _next(self, compiled: frozenset[tuple[str, str]]) -> StudyKey:
        """Take a study from the queue: one that the slot has compiled, else that no other has."""
        others = {busy.key[:2] for busy in self._busy if busy.key is not None}
        key = min(self._queue, key=lambda key: (key[:2] not in compiled, key[:2] in others))
        self._queue.remove(key)
        return key

    def _start(self, busy: _Busy, key: StudyKey) -> None:
        folder = key.folder(self._job.out)
        files = pack(folder) if not busy.shared and folder.exists() else None
        work = busy.actor.run.remote(key, key in self._audited, files)
        self._busy.append(
            _Busy(
                busy.actor, busy.node, work, key, busy.shared, time.monotonic(),
                compiled=busy.compiled | {key[:2]},
            )
        )  # fmt: skip

    def _end(self, busy: _Busy, outcome: Outcome) -> str | None:
        """Keep the end of a study; return the reason if its machine could not run it."""
        key = busy.key
        assert key is not None
        if outcome.refusal is not None:
            self._queue.appendleft(key)
            return outcome.refusal
        if outcome.files is not None:
            self._unpack(key, outcome.files)
        if outcome.trace is not None:
            self.traces.append(outcome.trace)
        if outcome.record is None:
            self.errors[key] = outcome.error or ""
        else:
            self.finished[key] = self._with_lost_seconds(key, outcome.record)
        self._tell(key, 1.0)
        return None

    def _unpack(self, key: StudyKey, files: bytes) -> None:
        unpack(files, key.folder(self._job.out), self._job.out / LOCKS)

    def _with_lost_seconds(self, key: StudyKey, record: StudyRecord) -> StudyRecord:
        if not self._lost[key]:
            return record
        record = record.model_copy(update={"lost_seconds": self._lost[key]})
        records.write_json(key.folder(self._job.out) / records.STUDY_FILE, record)
        return record

    def _refuse(self, node: str, reason: str) -> None:
        if node in self._refused:  # by another of its slots
            return
        hosts = {n["NodeID"]: n["NodeManagerHostname"] for n in ray.nodes()}
        self._refused[node] = f"{hosts.get(node, node)}: {reason}"
        self._note(f"{self._refused[node]}; it runs no study.")

    def _ask_progress(self) -> None:
        """Take the slots' answers, and ask those again that have answered."""
        for busy in self._busy:
            if busy.key is None:
                continue
            if busy.progress is not None:
                if not ray.wait([busy.progress], timeout=0)[0]:
                    continue
                with contextlib.suppress(RayError):
                    share, seen, files = ray.get(busy.progress)
                    self._tell(busy.key, min(share, 0.999))  # it ends with its record
                    if files is not None:
                        self._unpack(busy.key, files)
                    if seen:
                        busy.copied, busy.since = seen, time.monotonic()
            due = not busy.shared and time.monotonic() - busy.since > _COPY_SECONDS
            busy.progress = busy.actor.progress.remote(busy.copied if due else None)

    # Deaths.

    def _after_death(self, busy: _Busy, error: Exception) -> None:
        """Queue the study of a slot that died, and blame its trial if it killed two processes."""
        with contextlib.suppress(Exception):
            ray.kill(busy.actor)  # it may be unreachable only
        key = busy.key
        if key is None:
            self._failed_starts[busy.node] += 1
            if self._failed_starts[busy.node] == _STARTS:
                self._refuse(busy.node, f"its processes die when they start ({first_line(error)})")
            return
        folder = key.folder(self._job.out)
        if not busy.shared:
            files = self._fetch(busy, key)
            if files is not None:
                self._unpack(key, files)
            else:
                self._lost[key] += time.monotonic() - busy.since
        at_work = sorted(folder.glob(f"trial_*/{PROGRESS_FILE}"))
        stands = position(folder), tuple(path.parent.name for path in at_work)
        deaths = self._deaths.setdefault(key, [])
        if self._answers(busy.node):  # otherwise its machine has died
            deaths.append(stands)
            fail_open_audits(folder)
        if deaths.count(stands) < 2:
            self._note(f"{key}: its process died; it continues from its checkpoint.")
        elif at_work:
            for path in at_work:
                mark_died(path.parent)
            deaths.clear()
            self._note(f"{key}: its trial has ended two processes and has failed.")
        else:
            self.errors[key] = (
                "its process died twice outside of any trial (out of memory?). What is "
                "finished is kept: run the same command again to continue."
            )
            self._tell(key, 1.0)
            return
        self._queue.appendleft(key)

    def _answers(self, node: str) -> bool:
        """Return whether a machine is there; Ray needs a while to notice that one is not."""
        until = time.monotonic() + _NODE_SECONDS
        while time.monotonic() < until and node in {n["NodeID"] for n in alive_nodes()}:
            with contextlib.suppress(RayError):
                ray.get(on_node(node, available_cores), timeout=_ANSWER_SECONDS)
                return True
        return False

    def _fetch(self, busy: _Busy, key: StudyKey) -> bytes | None:
        """Return the files of a dead slot's study from its machine's disk, if that is alive."""
        with contextlib.suppress(RayError):
            folder = key.folder(self._job.node_folder / "out")
            return ray.get(on_node(busy.node, pack, folder), timeout=_NODE_SECONDS)
        return None


def _clean(job: Job) -> None:
    """Delete the machines' own folders, where they can be reached."""
    _remove(job.node_folder)
    others = [n for n in alive_nodes() if n["NodeManagerHostname"] != socket.gethostname()]
    with contextlib.suppress(RayError):
        refs = [on_node(node["NodeID"], _remove, job.node_folder) for node in others]
        ray.get(refs, timeout=_POLL_SECONDS * 4)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
