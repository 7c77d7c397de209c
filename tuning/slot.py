"""A slot: the process that runs one study after another, and keeps what it compiled.

A slot is a Ray actor, see :mod:`tuning.engine`. With ``--in-process`` the functions of this module
run in the driver's own process.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax
from jax.experimental.compilation_cache import compilation_cache

from metaopt.bench import records
from metaopt.bench.records import StudyRecord
from metaopt.bench.records.failures import describe
from metaopt.bench.records.identity import listed
from metaopt.bench.records.layout import AUDIT_STALL_FILE, STALL_FILE
from metaopt.bench.records.redaction import redact
from metaopt.bench.trial.checkpoints import FILE as CHECKPOINT_FILE
from metaopt.bench.trial.environment import CHECKOUT, describe_checkout, describe_environment
from metaopt.bench.trial.stalls import read_stall
from tuning.campaign import Campaign, make_campaign
from tuning.cores import available_cores, keep_to
from tuning.identities import Identities, changed_names, identify_campaign
from tuning.locks import hold
from tuning.studies import LOCKS, LOGS, StudyKey, campaign_currency, plan_study
from tuning.study import run_study

_LOCK_SECONDS = 10.0  # until the processes of a killed campaign have ended
_MEMORY_SHARE = 0.9  # of a GPU's share: the rest is for the driver and libraries


@dataclasses.dataclass(frozen=True)
class Job:
    """The same for all slots of a campaign.

    Attributes:
        document: The campaign as JSON data.
        identities: The identities of its studies, as the driver sees them.
        out: The output folder on the driver's machine.
        token: The content of the file ``mark`` in ``out``: a slot that reads it shares the disk.
        mark: That file's name.
        commit: Of the driver's checkout; ``None`` if that is not under version control.
        cpus: Cores of each slot.
        gpus: GPUs of each slot; a share of one below 1.
    """

    document: dict[str, Any]
    identities: Identities
    out: Path
    token: str = ""
    mark: str = f"{LOCKS}/disk"
    commit: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    @property
    def node_folder(self) -> Path:
        """A folder on the slot's machine, for core locks and for studies without a shared disk."""
        return Path(tempfile.gettempdir()) / f"metaopt-{self.token}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a slot's work on a study.

    Attributes:
        record: The study's record; ``None`` after an error.
        error: The error of a study that cannot continue.
        trace: Its traceback, if it is a defect rather than a user's mistake.
        refusal: The reason why this machine can run no study.
        files: The packed study folder, without a shared disk.
    """

    record: StudyRecord | None = None
    error: str | None = None
    trace: str | None = None
    refusal: str | None = None
    files: bytes | None = None


class Slot:
    """Runs studies, one at a time, in a process of its own.

    Args:
        job: The campaign and the slot's resources.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._campaign: Campaign | None = None
        self._out = job.out
        self._share = 0.0
        self._folder: Path | None = None  # of the study at work, without a shared disk

    def prepare(self) -> tuple[str | None, bool]:
        """Take cores and devices, and check that this machine can run the campaign.

        Returns:
            The reason why it cannot, or ``None``; and whether it shares the driver's disk.

        Raises:
            DeviceError: JAX does not get the GPUs.
        """
        job = self._job
        try:
            self._cores = take_cores(job.cpus, job.node_folder)  # freed when this process ends
        except OSError as error:
            return str(error), False
        take_gpus(job.gpus)
        shared = is_shared(job)
        if not shared:
            self._out = job.node_folder / "out"
        try:
            campaign = make_campaign(job.document, "campaign")
            names = changed_names(job.identities, identify_campaign(campaign))
        except (ValueError, OSError) as error:
            return str(error), shared
        if names:
            return f"its version of {listed(names)} is not the driver's", shared
        commit = checkout_commit()
        if None not in (commit, job.commit) and commit != job.commit:
            return f"its checkout is at commit {commit}, the driver's at {job.commit}", shared
        if campaign_currency(campaign) != "seconds":
            keep_compiled(job.out if shared else job.node_folder)
        self._campaign = campaign
        return None, shared

    def run(self, key: StudyKey, audited: bool, files: bytes | None = None) -> Outcome:
        """Run a study to its end.

        Args:
            key: The study.
            audited: Whether to audit one of its trials.
            files: Its packed folder, without a shared disk; ``None`` if it was not begun.
        """
        assert self._campaign is not None
        shared = self._out == self._job.out
        folder = key.folder(self._out)
        self._share = 0.0
        try:
            if not shared:
                shutil.rmtree(folder, ignore_errors=True)
                if files is not None:
                    unpack(files, folder, self._job.node_folder)
                self._folder = folder
            record = run_one(
                self._campaign, self._job.identities, key, self._out, audited, self._take_share
            )
            outcome = Outcome(record)
        except Exception as error:
            outcome = failed(error)
        finally:
            self._folder = None
        if not shared and outcome.refusal is None:
            outcome = dataclasses.replace(outcome, files=pack(folder))
        return outcome

    def progress(self, seen: tuple[Any, ...] | None) -> tuple[float, tuple[Any, ...], bytes | None]:
        """Return the spent share of the budget, the checkpoints' state, and the changed files.

        Args:
            seen: The checkpoints' state as of the last call; ``None`` wants no files.
        """
        folder = self._folder
        if folder is None or seen is None:
            return self._share, (), None
        state = position(folder)
        return self._share, state, pack(folder) if state != seen else None

    def _take_share(self, share: float) -> None:
        self._share = share


class DeviceError(ValueError):
    """JAX did not get the devices that a slot was given."""


def run_one(
    campaign: Campaign,
    identities: Identities,
    key: StudyKey,
    out: Path,
    audited: bool,
    on_progress: Callable[[float], None],
) -> StudyRecord:
    """Run a study in this process, alone in its folder, and return its record."""
    plan = plan_study(campaign, key, identities[key.contender, key.workload])
    plan = dataclasses.replace(plan, audited=audited)
    lock = out / LOCKS / f"{key.contender}-{key.workload}-{key.study}.lock"
    with hold(lock, f"The study {key}", wait_seconds=_LOCK_SECONDS):
        record = run_study(
            plan, out / LOGS, on_progress=on_progress, stall_seconds=campaign.stall_seconds
        )
    for name in (STALL_FILE, AUDIT_STALL_FILE):
        for path in key.folder(out).glob(f"trial_*/{name}"):
            if read_stall(path) is None:  # of a process that was killed
                path.unlink()
    return record


def failed(error: Exception) -> Outcome:
    """Return the outcome of a study that raised ``error``."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Outcome(refusal=f"{error.strerror}: {error.filename or 'its disk'}")
    if isinstance(error, ValueError | OSError):
        return Outcome(error=str(error))
    return Outcome(error=describe(error), trace=redact("".join(traceback.format_exception(error))))


def checkout_commit() -> str | None:
    """Return the commit of this machine's checkout; ``None`` without version control."""
    return describe_checkout(CHECKOUT)["commit"]


# Resources of this process.


def take_cores(count: int, folder: Path) -> filelock.FileLock | None:
    """Restrict this process to ``count`` cores that no other slot on this machine has.

    Args:
        count: The number of cores.
        folder: The folder of the locks, one for each share of the cores. The system releases a lock
            when the process ends, however it ends.

    Returns:
        The lock of the share, to be kept; ``None`` where processes cannot be restricted.
    """
    cores = available_cores()
    if not cores:
        return None
    (folder / "cores").mkdir(parents=True, exist_ok=True)
    share = 0
    while True:
        lock = filelock.FileLock(folder / "cores" / str(share), timeout=0)
        with contextlib.suppress(filelock.Timeout):
            lock.acquire()
            break
        share += 1
    # With more slots than shares, which only a cluster's own settings can bring, some share cores.
    keep_to(sorted({cores[(share * count + i) % len(cores)] for i in range(count)}))
    return lock


def take_gpus(count: float) -> None:
    """Limit JAX to this process's share of the GPUs, which Ray has chosen.

    Raises:
        DeviceError: JAX finds another number of GPUs, or none.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if 0 < count < 1:
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", f"{_MEMORY_SHARE * count:.3g}")
    if not count or "cpu" in wanted.split(","):
        return
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise DeviceError(f"JAX finds no GPU on {socket.gethostname()}: {error}") from None
    gpus = [device for device in devices if device.platform == "gpu"]
    if len(gpus) != max(1, count):
        raise DeviceError(
            f"Each study has {count:g} GPUs, and JAX finds {len(gpus)} on {socket.gethostname()}. "
            "Install JAX for GPUs, or pass --gpus-per-study 0."
        )


def keep_compiled(folder: Path) -> None:
    """Keep compiled programs in ``folder``, for the processes on equal hardware.

    A user's own ``JAX_COMPILATION_CACHE_DIR`` stays as it is.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    environment = describe_environment()
    names = ("cpu", "backend", "devices", "device_version")
    parts = [environment["hardware"][name] for name in names] + [environment["software"]["jax"]]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    jax.config.update("jax_compilation_cache_dir", str(folder / ".compiled" / digest))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Studies without a shared disk.


def is_shared(job: Job) -> bool:
    """Return whether this process sees the driver's output folder."""
    try:
        return (job.out / job.mark).read_text("utf-8") == job.token
    except OSError:
        return False


def position(folder: Path) -> tuple[Any, ...]:
    """Return the state of a study's folder: what changes with a checkpoint or a finished trial."""
    found = []
    for name in (CHECKPOINT_FILE, records.RUN_FILE):
        for path in folder.glob(f"trial_*/{name}"):
            with contextlib.suppress(FileNotFoundError):
                found.append((f"{path.parent.name}/{name}", path.stat().st_mtime_ns))
    return tuple(sorted(found))


def pack(folder: Path) -> bytes:
    """Return the files of a study as a tar archive.

    A checkpoint is read before the evaluations that it presumes. So the copy of a study at work is
    that of its last checkpoint, perhaps with later evaluations, which a resumed trial drops.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        paths = sorted(folder.rglob("*"), key=lambda path: path.name != CHECKPOINT_FILE)
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # a temporary name, or a finished trial's
                if path.is_file():
                    archive.add(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def unpack(files: bytes, folder: Path, aside: Path) -> None:
    """Make ``folder`` hold exactly the packed files; if that fails, leave it as it is.

    Args:
        files: The archive.
        folder: The folder of the study.
        aside: A folder on the same disk, for the time of unpacking.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=aside) as new:
        (Path(new) / "new").mkdir()  # an archive may be empty
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(Path(new) / "new", filter="data")
        if folder.exists():
            folder.rename(Path(new) / "old")
        (Path(new) / "new").rename(folder)


@contextlib.contextmanager
def compiled_programs_kept(campaign: Campaign, out: Path) -> Iterator[None]:
    """Keep compiled programs in ``out`` within a block, unless budgets are in seconds."""
    before = jax.config.values["jax_compilation_cache_dir"]
    compilation_cache.reset_cache()  # JAX keeps the folder that it opened first
    if campaign_currency(campaign) != "seconds":
        keep_compiled(out)
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
