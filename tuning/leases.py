"""Studies of a campaign shared among machines: claimed, leased and renewed through a storage.

The storage is one of Optuna's. A *control study* there stands for the campaign; each of its trials
is one attempt at one study of the campaign:

    WAITING    in the queue
    RUNNING    leased by a worker, which counts its beats in the trial's attribute ``lease``
    COMPLETE   at its end; the record is in the attribute ``record``
    FAIL       given up: the lease expired, the worker let go of it, or it was queued twice

A claim is the change from WAITING to RUNNING, which a storage grants once. A lease expires when its
beats have stood still for ``lease_seconds`` *on the watcher's own clock*, so clocks of machines
need not agree. Whoever lacks a study in the queue adds it; what was queued twice is run once,
because the attempt with the smallest number counts and everybody sees the same numbers.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metaopt.bench.records import StudyRecord
from tuning.campaign import describe_changes
from tuning.slots import StudyKey
from tuning.storages import PatientStorage

_ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class LeaseLostError(Exception):
    """Somebody else took the study: the lease had expired."""


@dataclasses.dataclass
class Lease:
    """A study that is this worker's for now.

    Attributes:
        key: The study.
        trial_id: Of the attempt, in the storage.
        since: When it was claimed, on this worker's clock.
        seconds_before: What earlier attempts at the study took until their last beats.
        beats: How often it was renewed.
    """

    key: StudyKey
    trial_id: int
    since: float
    seconds_before: float
    beats: int = 0


class LeaseQueue:
    """The studies of one campaign in a shared storage, seen by one worker.

    Args:
        storage: Where they are shared.
        campaign: What the campaign says, as JSON data; all workers must say the same.
        studies: All of its studies.
        worker: A name for people, such as host and process.
        lease_seconds: After so long without a beat a study goes back to the queue.
        now: This worker's clock.

    Raises:
        ValueError: The storage holds another campaign of that name; shows the difference. Or it
            is SQLite, which locks no rows, so that two workers could both be granted a study.
        StorageError: The storage does not answer (as in every method).
    """

    def __init__(
        self,
        storage: PatientStorage,
        campaign: dict[str, Any],
        studies: list[StudyKey],
        *,
        worker: str,
        lease_seconds: float = 60.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if storage.name.startswith("sqlite"):
            raise ValueError(
                f"sqlite cannot share studies among workers, got {storage.name!r}; on one machine "
                "or a shared disk use journal:FILE."
            )
        self._storage = storage
        self._studies = studies
        self._worker = worker
        self.lease_seconds = lease_seconds
        self._now = now
        self._beats: dict[int, tuple[Any, float]] = {}  # of others: lease, and since when
        self._study_id = storage.call(lambda s: _open_study(s, campaign))
        self._queue_missing()

    def claim(self) -> Lease | None:
        """Take the next study that waits; ``None`` if none does."""
        self._expire()
        self._queue_missing()
        trials = self._trials()
        for trial in trials:
            if trial.state != TrialState.WAITING:
                continue
            if trial.number != _counting(trials, _key(trial)):
                self._finish(trial._trial_id, TrialState.FAIL, {"why": "queued twice"})
            elif self._storage.call(lambda s, t=trial: _start(s, t._trial_id)):
                before = sum(
                    t.user_attrs.get("lease", {}).get("seconds", 0.0)
                    for t in trials
                    if t.state == TrialState.FAIL and _key(t) == _key(trial)
                )
                lease = Lease(_key(trial), trial._trial_id, self._now(), before)
                self.renew(lease)
                return lease
        return None

    def renew(self, lease: Lease) -> None:
        """Say that the study is being worked on.

        Raises:
            LeaseLostError: It is not this worker's any more.
        """
        lease.beats += 1
        seconds = self._now() - lease.since
        content = {"worker": self._worker, "beats": lease.beats, "seconds": seconds}
        try:
            self._set(lease.trial_id, {"lease": content})
        except optuna.exceptions.UpdateFinishedTrialError:
            raise LeaseLostError(str(lease.key)) from None

    def finish(self, lease: Lease, record: StudyRecord) -> None:
        """Put a study's record down; it is not run again.

        Raises:
            LeaseLostError: It is not this worker's any more.
        """
        attributes = {"record": record.model_dump(mode="json"), "worker": self._worker}
        if not self._finish(lease.trial_id, TrialState.COMPLETE, attributes, [record.trials]):
            raise LeaseLostError(str(lease.key))

    def release(self, lease: Lease, why: str) -> None:
        """Put a study back into the queue."""
        self._finish(lease.trial_id, TrialState.FAIL, {"why": why})
        self._queue_missing()

    def finished(self) -> dict[StudyKey, StudyRecord]:
        """Return the records of all studies that have come to their end, on any machine."""
        return {
            _key(trial): StudyRecord.model_validate(trial.user_attrs["record"])
            for trial in reversed(self._trials())
            if trial.state == TrialState.COMPLETE
        }

    def is_done(self) -> bool:
        """Return whether every study has come to its end."""
        done = {_key(trial) for trial in self._trials() if trial.state == TrialState.COMPLETE}
        return done >= set(self._studies)

    def _expire(self) -> None:
        """Give up the leases of workers that have been silent for too long."""
        now = self._now()
        for trial in self._trials():
            if trial.state != TrialState.RUNNING:
                continue
            lease = trial.user_attrs.get("lease")
            if (lease or {}).get("worker") == self._worker:
                continue
            before, since = self._beats.get(trial._trial_id, (None, now))
            if trial._trial_id not in self._beats or lease != before:
                self._beats[trial._trial_id] = lease, now
            elif now - since > self.lease_seconds:
                why = f"no beat of {lease} for {self.lease_seconds:g} s, seen by {self._worker}"
                self._finish(trial._trial_id, TrialState.FAIL, {"why": why})

    def _queue_missing(self) -> None:
        trials = self._trials()
        missing = [key for key in self._studies if _counting(trials, key) is None]
        for key in missing:
            template = optuna.trial.create_trial(
                state=TrialState.WAITING, user_attrs={"study": list(key)}
            )
            self._storage.call(lambda s, t=template: s.create_new_trial(self._study_id, t))

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.call(lambda s: s.get_all_trials(self._study_id, deepcopy=False))

    def _set(self, trial_id: int, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            self._storage.call(lambda s, n=name, v=value: s.set_trial_user_attr(trial_id, n, v))

    def _finish(
        self,
        trial_id: int,
        state: TrialState,
        attributes: dict[str, Any],
        values: list[float] | None = None,
    ) -> bool:
        """Return whether this worker was the one to end the attempt."""
        try:
            self._set(trial_id, attributes)
            self._storage.call(lambda s: s.set_trial_state_values(trial_id, state, values))
        except optuna.exceptions.UpdateFinishedTrialError:
            # A call that came through although its answer was lost: the state is the one asked for.
            trial = self._storage.call(lambda s: s.get_trial(trial_id))
            return trial.state == state and trial.user_attrs.get("worker") == self._worker
        return True


def _start(storage: BaseStorage, trial_id: int) -> bool:
    try:
        return storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False


def _key(trial: FrozenTrial) -> StudyKey:
    return StudyKey(*trial.user_attrs["study"])


def _counting(trials: list[FrozenTrial], key: StudyKey) -> int | None:
    """Return the number of the attempt at a study that counts: the smallest of those alive."""
    alive = (t.number for t in trials if t.state in _ALIVE and _key(t) == key)
    return min(alive, default=None)


def _open_study(storage: BaseStorage, campaign: dict[str, Any]) -> int:
    name = f"campaign {campaign['name']}"
    text = json.dumps(campaign, sort_keys=True)
    try:
        study_id = storage.create_new_study([StudyDirection.MINIMIZE], name)
    except optuna.exceptions.DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
    attributes = storage.get_study_user_attrs(study_id)
    if "campaign" not in attributes:  # also where the one who made the study died before this
        storage.set_study_user_attr(study_id, "campaign", text)
        return study_id
    if changed := describe_changes(json.loads(attributes["campaign"]), campaign):
        raise ValueError(
            f"The storage holds another campaign named {campaign['name']!r} "
            f"({changed}). Give yours another name, or run the campaign as it was."
        )
    return study_id
