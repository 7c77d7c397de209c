"""Hardware: what a run's seconds depend on, as a fingerprint; seconds of two are not mixed.

Steps and gradient evaluations may be compared across hardware, seconds may not. A table in seconds
over runs of more than one fingerprint is refused, unless it is asked for by name; then it says so.
What may be compared are ratios to a reference that ran on each, see
:mod:`analysis.scoring.calibration`.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from analysis.logs.reading import Logs
from analysis.text import plain
from metaopt.bench.budget import Currency

# Versions that decide how fast a step is. Those of the tuners and of this package do not.
_SOFTWARE = ("python", "jax", "jaxlib", "flax", "optax", "numpy")
_NOISE = re.compile(
    r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|\b\w+-core\b|@.*|\bwith radeon.*", re.IGNORECASE
)
_DEFAULT = ("", "default", "False")  # of precision: records that do not say it had these
_LONGEST = 40  # characters of a slug before its id
_MIXED = "MIXED HARDWARE: seconds of {} stand in one table, as was asked for."
_TEXT = 300  # characters of a stranger's value that are kept
UNKNOWN = "unknown"


class Fingerprint(pydantic.BaseModel):
    """What decides how long a step takes. Memory is in whole GiB: its bytes vary between boots."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    processor: str = UNKNOWN
    processor_count: int | None = None
    memory_gib: int | None = None
    devices: tuple[str, ...] = ()  # accelerators, one entry each; none: the processor computes
    driver: str = ""
    precision: dict[str, str] = {}
    xla_flags: str = ""
    software: dict[str, str] = {}

    @property
    def id(self) -> str:
        """Six digits that differ where anything does."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:6]

    @property
    def slug(self) -> str:
        """A name for files and options, such as ``amd-epyc-9v74-x2-1a2b3c``."""
        name, count = self._computing
        words = re.findall(r"[a-z0-9]+", _NOISE.sub(" ", name.lower()))
        readable = "-".join(words)[:_LONGEST].strip("-") or UNKNOWN
        return f"{readable}{'' if count is None else f'-x{count}'}-{self.id}"

    @property
    def name(self) -> str:
        """A name for people, such as ``AMD EPYC 9V74 x 2``."""
        name, count = self._computing
        return name if count is None else f"{name} x {count}"

    @property
    def _computing(self) -> tuple[str, int | None]:
        if not self.devices:
            return self.processor, self.processor_count
        kinds = Counter(self.devices)
        return " and ".join(sorted(kinds)), len(self.devices)


def fingerprint_of(environment: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of the environment in a ``run.json``; what it lacks is unknown."""
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


def fingerprint_of_meta_data(meta_data: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of AlgoPerf's ``meta_data_0.json``.

    It has no versions of JAX or torch, so runs with different ones are not told apart.
    """
    gpus = _count(meta_data.get("gpu_count")) or 0
    python = _text(meta_data.get("python_version"))
    return Fingerprint(
        processor=_text(meta_data.get("cpu_model_name")) or UNKNOWN,
        processor_count=_count(meta_data.get("cpu_count")),
        devices=(_text(meta_data.get("gpu_model_name")) or UNKNOWN,) * min(gpus, 10_000),
        driver=_text(meta_data.get("gpu_driver")),
        software={"python": python} if python else {},
    )


def _text(value: Any) -> str:
    return "" if value is None else " ".join(plain(value).split())[:_TEXT]


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None


def hardware_of(logs: Logs) -> dict[str, Fingerprint]:
    """Return the fingerprints of all trials by slug, sorted."""
    # One trial of each environment: a campaign has thousands of trials and few of these.
    environments = {repr(t.record.environment): t.record.environment for t in logs.trials}
    found = [fingerprint_of(environment) for environment in environments.values()]
    return {f.slug: f for f in sorted(found, key=lambda f: f.slug)}


@dataclasses.dataclass(frozen=True)
class HardwareChoice:
    """Which runs a table is of, and whether it may mix their seconds.

    Attributes:
        names: Slugs or ids of fingerprints; none: all runs. To name several is to ask for a mix.
        mix: Seconds of different hardware may stand in one table.
    """

    names: tuple[str, ...] = ()
    mix: bool = False

    def select(self, logs: Logs) -> Logs:
        """Return the runs on the hardware that was named.

        Contenders, workloads and studies without a run on it are left out, and the studies that
        are left are numbered anew: what nobody ran there is not missing there. A study that only
        some ran there is missing for the others. A note says what was left out.

        Raises:
            ValueError: There is no such hardware in the logs.
        """
        if not self.names:
            return logs
        known = hardware_of(logs)
        slugs = {_find(name, known) for name in self.names}
        trials = [t for t in logs.trials if fingerprint_of(t.record.environment).slug in slugs]
        keys = {(t.record.contender, t.record.workload, t.record.study) for t in trials}
        contenders, workloads = ({key[i] for key in keys} for i in (0, 1))
        studies = sorted({study for _, _, study in keys})
        number = {study: place for place, study in enumerate(studies, start=1)}
        campaign = logs.campaign
        if campaign is not None:
            campaign = campaign | {
                "contenders": [name for name in campaign["contenders"] if name in contenders],
                "workloads": [name for name in campaign["workloads"] if name in workloads],
                "studies": len(studies),
            }
        note = (
            f"only runs on {', '.join(sorted(slugs))}: {len(trials)} of {len(logs.trials)} trials"
        )
        if studies != sorted(number.values()):
            note += f"; its studies {', '.join(map(str, studies))} are numbered from 1"
        return dataclasses.replace(
            logs,
            trials=tuple(
                dataclasses.replace(t, record=_renumbered(t.record, number)) for t in trials
            ),
            studies=tuple(
                _renumbered(s, number)
                for s in logs.studies
                if (s.contender, s.workload, s.study) in keys
            ),
            campaign=campaign,
            notes=(*logs.notes, note),
        )

    def check(self, logs: Logs, currency: Currency) -> tuple[str, ...]:
        """See that no seconds are mixed that may not be; return what a table has to say of them.

        Raises:
            ValueError: The costs are seconds of different hardware, and nobody asked for that.
        """
        found = hardware_of(logs)
        if currency != "seconds" or len(found) < 2:
            return ()
        listed = ", ".join(found)
        if not self.mix and len(self.names) < 2:
            raise ValueError(
                f"Seconds of different hardware are not comparable, and the runs are of {listed}. "
                "Choose one with --hardware ID, count --cost steps or gradient_evaluations, "
                "compare ratios with `python -m analysis hardware`, or mix them all the same with "
                "--mix-hardware."
            )
        return (_MIXED.format(listed),)


ANY_HARDWARE = HardwareChoice()


def check_log_seconds(
    meta_data: Iterable[Mapping[str, Any]], *, mix: bool = False
) -> tuple[str, ...]:
    """See that seconds of AlgoPerf's logs are of one kind of hardware; return notes on a table.

    One kind is the same accelerators, or the same processors where there are none: that is what
    AlgoPerf's rules fix. What else differs between machines is in a note.

    Args:
        meta_data: Of the trials, as in ``meta_data_0.json``; an empty one says nothing.
        mix: Whether somebody asked for a mix.

    Raises:
        ValueError: They are of several kinds, and nobody asked for that.
    """
    fingerprints = [fingerprint_of_meta_data(meta) for meta in meta_data]
    silent = sum(fingerprint.name == UNKNOWN for fingerprint in fingerprints)
    fingerprints = [one for one in fingerprints if one.name != UNKNOWN]
    unknown = f"{silent} trial{'s do' if silent > 1 else ' does'} not say on which hardware"
    notes = (unknown,) if silent and fingerprints else ()
    found = {fingerprint.slug: fingerprint for fingerprint in fingerprints}.values()
    names = sorted({fingerprint.name for fingerprint in found})
    listed = ", ".join(names)
    if len(names) > 1:
        if not mix:
            raise ValueError(
                f"Seconds of different hardware are not comparable, and the logs are of {listed}. "
                "Choose a part of the logs with --within, count --cost steps, or mix them all the "
                "same with --mix-hardware."
            )
        return (_MIXED.format(listed), *notes)
    if len(found) > 1:
        parts = ("processor", "processor_count", "driver", "software")
        differing = [
            part.replace("_", " ")
            for part in parts
            if len({str(getattr(fingerprint, part)) for fingerprint in found}) > 1
        ]
        differences = f"all on {listed}, of machines that differ in their {', '.join(differing)}"
        return (differences, *notes)
    return notes


def _find(name: str, known: Mapping[str, Fingerprint]) -> str:
    for slug, fingerprint in known.items():
        if name in (slug, fingerprint.id):
            return slug
    raise ValueError(f"No runs on hardware {name!r}, only on {list(known)}.")


def _renumbered(record: Any, number: Mapping[int, int]) -> Any:
    return record.model_copy(update={"study": number[record.study]})
