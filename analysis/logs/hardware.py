"""Fingerprints of hardware, and the rule that seconds of different hardware are not mixed.

Steps and gradient evaluations are comparable across hardware, seconds are not. A table in seconds
over several fingerprints is refused unless the user asks for it; then the table says so. Machines
are compared by seconds per gradient evaluation without compilation, see
:mod:`analysis.scoring.machines`.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from analysis.logs.logs import Logs
from analysis.logs.oddities import Oddity
from analysis.wording import plain

# These versions affect the speed of a step; those of the tuners and of this package do not.
_SOFTWARE = ("python", "jax", "jaxlib", "flax", "optax", "numpy")
_NOISE = re.compile(
    r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|\b\w+-core\b|@.*|\bwith radeon.*", re.IGNORECASE
)
_DEFAULT = ("", "default", "False")  # precision settings of records that do not name any
_LONGEST = 40  # characters of a slug before its id
MIXED = "MIXED HARDWARE"  # begins the note about it
_TEXT = 300  # characters of an untrusted value that are kept
UNKNOWN = "unknown"


class Fingerprint(pydantic.BaseModel):
    """The properties of a machine that affect the time of a step.

    Memory is rounded to GiB because its bytes vary between boots.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    processor: str = UNKNOWN
    processor_count: int | None = None
    memory_gib: int | None = None
    devices: tuple[str, ...] = ()  # one entry per accelerator; empty if the processor computes
    driver: str = ""
    precision: dict[str, str] = {}
    xla_flags: str = ""
    software: dict[str, str] = {}

    @functools.cached_property
    def id(self) -> str:
        """Six hexadecimal digits of the hash of all fields."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:6]

    @functools.cached_property
    def slug(self) -> str:
        """A name for files and options, such as ``amd-epyc-9v74-x2-1a2b3c``."""
        name, count = self._computing
        words = re.findall(r"[a-z0-9]+", _NOISE.sub(" ", name.lower()))
        readable = "-".join(words)[:_LONGEST].strip("-") or UNKNOWN
        return f"{readable}{'' if count is None else f'-x{count}'}-{self.id}"

    @property
    def name(self) -> str:
        """A readable name, such as ``AMD EPYC 9V74 x 2``."""
        name, count = self._computing
        return name if count is None else f"{name} x {count}"

    @property
    def _computing(self) -> tuple[str, int | None]:
        if not self.devices:
            return self.processor, self.processor_count
        kinds = Counter(self.devices)
        return " and ".join(sorted(kinds)), len(self.devices)


def fingerprint_of(environment: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of an environment in a ``run.json``; missing parts are "unknown"."""
    hardware, software, precision = (
        part if isinstance(part := environment.get(key), Mapping) else {}
        for key in ("hardware", "software", "precision")
    )
    devices = hardware.get("devices")
    kinds = [_text(kind) for kind in devices] if isinstance(devices, list | tuple) else []
    on_processor = hardware.get("backend", "cpu") == "cpu"
    memory = _count(hardware.get("memory_bytes"))
    return Fingerprint(
        processor=_text(hardware.get("cpu")) or UNKNOWN,
        processor_count=_count(hardware.get("cpu_count")),
        memory_gib=None if memory is None else round(memory / 2**30),
        devices=() if on_processor else tuple(sorted(kinds)),
        driver="" if on_processor else _text(hardware.get("device_version")),
        precision={
            _text(key): _text(value)
            for key, value in sorted(precision.items())
            if _text(value) not in _DEFAULT
        },
        xla_flags=_text(software.get("xla_flags")),
        software={name: _text(software[name]) for name in _SOFTWARE if software.get(name)},
    )


def _text(value: Any) -> str:
    return "" if value is None else " ".join(plain(value).split())[:_TEXT]


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None


def fingerprints(logs: Logs) -> list[Fingerprint]:
    """Return the fingerprint of each trial."""
    # Cached: a campaign has thousands of trials but few environments.
    known: dict[str, Fingerprint] = {}
    by_object: dict[int, Fingerprint] = {}
    found = []
    for trial in logs.trials:
        environment = trial.record.environment
        one = by_object.get(id(environment))
        if one is None:
            key = repr(environment)
            one = known.get(key) or fingerprint_of(environment)
            known[key] = by_object[id(environment)] = one
        found.append(one)
    return found


def hardware_of(logs: Logs) -> dict[str, Fingerprint]:
    """Return the fingerprints of all trials by slug, sorted."""
    return {
        f.slug: f for f in sorted(unique_fingerprints(fingerprints(logs)), key=lambda f: f.slug)
    }


def unique_fingerprints(found: Iterable[Fingerprint]) -> list[Fingerprint]:
    """Return the fingerprints without duplicates."""
    return list({one.id: one for one in found}.values())


@dataclasses.dataclass(frozen=True)
class HardwareChoice:
    """The hardware whose runs a table covers, and whether it may mix their seconds.

    Attributes:
        names: Slugs or ids of fingerprints; empty for all runs. Several names allow mixing.
        mix: Whether one table may hold seconds of different hardware.
    """

    names: tuple[str, ...] = ()
    mix: bool = False

    def select(self, logs: Logs) -> Logs:
        """Return the runs on the named hardware.

        Contenders, workloads and studies without any run on it are left out and do not count as
        missing. The remaining studies of our logs are numbered from 1. A study that only some
        contenders ran there is missing for the others; of AlgoPerf's logs as many are due as one
        of them ran there. An oddity names the exclusions.

        Raises:
            ValueError: The logs have no runs on that hardware.
        """
        if not self.names:
            return logs
        known = hardware_of(logs)
        slugs = {_find(name, known) for name in self.names}
        pairs = zip(logs.trials, fingerprints(logs), strict=True)
        trials = tuple(trial for trial, one in pairs if one.slug in slugs)
        note = (
            f"only runs on {', '.join(sorted(slugs))}: {len(trials)} of {len(logs.trials)} trials"
        )
        selected = dataclasses.replace(logs, trials=trials)
        if logs.is_ours:
            selected, renumbered = _without_others(selected)
            note += renumbered
        elif logs.due_studies is not None:
            there = dataclasses.replace(selected, due_studies=None).study_count
            selected = dataclasses.replace(selected, due_studies=min(logs.due_studies, there))
        oddity = Oddity("environment-hardware", ".", note)
        return dataclasses.replace(selected, oddities=(*logs.oddities, oddity))

    def check(self, logs: Logs, unit: str) -> tuple[str, ...]:
        """Refuse seconds of different hardware, and return notes for a table in seconds.

        AlgoPerf's rules fix the accelerators, or the processors if there are none. Its logs are
        refused only if those differ; other differences between machines are a note.

        Raises:
            ValueError: The costs are seconds of different hardware and mixing was not allowed.
        """
        if unit != "seconds":
            if self.mix:
                raise ValueError("--mix-hardware has no effect: the costs are not seconds.")
            return ()
        found = unique_fingerprints(fingerprints(logs))
        notes: tuple[str, ...] = ()
        if logs.is_ours:
            kinds = sorted(one.slug for one in found)
        else:
            silent = sum(one.name == UNKNOWN for one in fingerprints(logs))
            known = [one for one in found if one.name != UNKNOWN]
            if silent and known:
                verb = "do" if silent > 1 else "does"
                trials = f"{silent} trial{'s' if silent > 1 else ''}"
                notes = (f"{trials} {verb} not say on which hardware.",)
            kinds = sorted({one.name for one in known})
            if len(kinds) == 1 and len(known) > 1:
                notes = (_differences(kinds[0], known), *notes)
        if len(kinds) < 2:
            return notes
        listed = ", ".join(kinds)
        if not self.mix and len(self.names) < 2:
            raise ValueError(
                f"Seconds of different hardware are not comparable, and these are of {listed}. "
                "Choose one with --hardware ID, count --cost steps, compare machines with "
                "`python -m analysis hardware`, or mix them with --mix-hardware."
            )
        return (f"{MIXED}: seconds of {listed} stand in one table.", *notes)


ANY_HARDWARE = HardwareChoice()


def _differences(name: str, found: list[Fingerprint]) -> str:
    parts = ("processor", "processor_count", "driver", "software")
    differing = [
        part.replace("_", " ")
        for part in parts
        if len({str(getattr(fingerprint, part)) for fingerprint in found}) > 1
    ]
    return f"All on {name}, of machines that differ in their {', '.join(differing)}."


def _without_others(logs: Logs) -> tuple[Logs, str]:
    """Return a campaign without pairs that have no trial, studies numbered from 1, and a note."""
    records = [trial.record for trial in logs.trials]
    keys = {(r.contender, r.workload, r.study) for r in records}
    contenders, workloads = ({key[i] for key in keys} for i in (0, 1))
    studies = sorted({study for _, _, study in keys})
    number = {study: place for place, study in enumerate(studies, start=1)}
    campaign = logs.campaign
    if campaign is not None:
        campaign = {
            **campaign,
            "contenders": [name for name in campaign["contenders"] if name in contenders],
            "workloads": [name for name in campaign["workloads"] if name in workloads],
            "studies": len(studies),
        }
    note = ""
    if studies != sorted(number.values()):
        note = f"; its studies {', '.join(map(str, studies))} are numbered from 1"
    kept = dataclasses.replace(
        logs,
        trials=tuple(
            dataclasses.replace(t, record=_renumbered(t.record, number)) for t in logs.trials
        ),
        studies=tuple(
            _renumbered(s, number)
            for s in logs.studies
            if (s.contender, s.workload, s.study) in keys
        ),
        campaign=campaign,
        audits=tuple(
            _renumbered(a, number)
            for a in logs.audits
            if (a.contender, a.workload, a.study) in keys
        ),
    )
    return kept, note


def _find(name: str, known: Mapping[str, Fingerprint]) -> str:
    for slug, fingerprint in known.items():
        if name in (slug, fingerprint.id):
            return slug
    raise ValueError(f"No runs on hardware {name!r}, only on {list(known)}.")


def _renumbered(record: Any, number: Mapping[int, int]) -> Any:
    return record.model_copy(update={"study": number[record.study]})
