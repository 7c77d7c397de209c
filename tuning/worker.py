"""A worker: one of any number of machines that run the studies of a campaign together."""

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from tuning.campaign import Campaign
from tuning.executor import check_data, claim_folder, count_workers, list_studies, run_queue
from tuning.identities import all_names
from tuning.leases import Lease, LeaseLostError, LeaseQueue
from tuning.locks import hold
from tuning.progress import show_progress
from tuning.slots import LOCKS, StudyError, StudyKey
from tuning.storages import PatientStorage, StorageError

_BEATS = 4  # in a lease
_POLL_SECONDS = 2.0
_CLAIM_SECONDS = (
    30.0  # other workers hold the folder for a moment; a local campaign does to its end
)


def run_worker(
    campaign: Campaign,
    out: Path,
    url: str,
    *,
    workers: int | None = None,
    lease_seconds: float = 60.0,
    console: Console | None = None,
) -> dict[StudyKey, StudyRecord]:
    """Run studies of ``campaign`` beside other workers until all have come to their end.

    Where ``out`` is a folder that the workers share, a study whose worker died goes on from its
    checkpoint. Elsewhere it starts again.

    Args:
        campaign: What to run; the same for all workers.
        out: Output folder.
        url: Of the storage through which workers share the studies.
        workers: Processes on this machine, as for ``compare``.
        lease_seconds: After so long without a sign of life a study goes to another worker.
        console: Where progress bars go, if it is a terminal.

    Returns:
        The records of all studies, wherever they ran.

    Raises:
        FileNotFoundError: The campaign needs data that is not there.
        ValueError: ``out`` or the storage holds something else, or does not answer; budgets in
            seconds with several processes.
    """
    studies = list_studies(campaign)
    processes = count_workers(campaign, workers, len(studies))
    check_data(campaign)
    lock = out / LOCKS / "campaign.lock"
    with hold(lock, f"Output folder {str(out)!r}", wait_seconds=_CLAIM_SECONDS):
        identities = claim_folder(campaign, out, console)
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    document = campaign.model_dump(mode="json") | all_names(identities)  # of all workers
    leases = LeaseQueue(
        PatientStorage(url), document, studies, worker=name, lease_seconds=lease_seconds
    )
    queue = SharedQueue(leases, out)
    with show_progress(len(studies), console) as tell, queue.renewing():
        run_queue(queue, campaign, out, identities, processes, tell)
    return leases.finished()


def missing_studies(campaign: Campaign, out: Path) -> list[StudyKey]:
    """Return the studies whose results are not in ``out``: other workers have them elsewhere."""
    return [
        key for key in list_studies(campaign) if not (key.folder(out) / records.STUDY_FILE).exists()
    ]


class SharedQueue:
    """Hands leased studies to the slots, and keeps the leases alive."""

    def __init__(self, leases: LeaseQueue, out: Path) -> None:
        self._leases = leases
        self._out = out
        self._held: dict[StudyKey, Lease] = {}
        self._lock = threading.RLock()  # a storage is used by one thread at a time
        self._stopped = threading.Event()
        self._error: BaseException | None = None

    def take(self) -> StudyKey | None:
        """Wait for a study to be free; ``None`` when all have come to their end."""
        while not self._stopped.is_set():
            self.check()
            with self._lock:
                lease = self._leases.claim()
                if lease is not None:
                    if lease.key.folder(self._out).exists():  # it goes on from its checkpoint
                        lease.seconds_before = 0.0
                    self._held[lease.key] = lease
                    return lease.key
                if self._leases.is_done():
                    return None
            self._stopped.wait(_POLL_SECONDS)
        return None

    def done(self, key: StudyKey, record: StudyRecord) -> None:
        """Put the record down in the storage, with what was lost on machines that died."""
        with self._lock:
            lease = self._held[key]
            if lease.seconds_before:
                record = record.model_copy(update={"lost_seconds": lease.seconds_before})
                records.write_json(key.folder(self._out) / records.STUDY_FILE, record)
            try:
                self._leases.finish(lease, record)
            except LeaseLostError as error:
                self._error = error
            else:
                del self._held[key]
        self.check()

    def failed(self, key: StudyKey, error: StudyError) -> None:
        """Raise the error: this worker stops, and gives its studies back."""
        raise StudyError(f"{key}: {error}") from None

    def check(self) -> None:
        """Raise if a lease was lost, or the storage is."""
        if isinstance(self._error, LeaseLostError):
            raise ValueError(
                f"Another worker has taken {self._error}: this one was silent for too long. Run "
                "the same command again to go on."
            )
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let nobody wait for a study any more."""
        self._stopped.set()

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew the leases in the background; on the way out, give back those still held."""
        thread = threading.Thread(target=self._renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
            with suppress(StorageError):  # then they expire by themselves
                for lease in self._held.values():
                    self._leases.release(lease, "its worker was stopped")

    def _renew(self) -> None:
        while not self._stopped.wait(self._leases.lease_seconds / _BEATS):
            with self._lock:
                try:
                    for lease in self._held.values():
                        self._leases.renew(lease)
                except Exception as error:  # said by whoever checks next, not by this thread
                    self._error = error
                    return
