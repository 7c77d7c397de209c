"""Join the logs of several folders or archives that were run under one protocol.

Campaigns of ours join if seed and number of studies agree, and, on each workload, its version and
data, its target, the budget of a study, the evaluation schedule and the seeds of each study. Logs
of AlgoPerf's runner have no such protocol in them; they join if their targets agree. A study that
is in two parts must be the same study, with the same records.
"""

import dataclasses
import itertools
import json
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.logs.layout import StudyKey, locate
from analysis.logs.logs import Logs, Trial
from analysis.logs.oddities import Oddities
from analysis.logs.sources import MAX_BYTES, walk_files
from analysis.wording import plain
from metaopt.bench.records import CAMPAIGN_FILE, TrialRecord
from metaopt.bench.records.identity import WORKLOAD_PARTS, digest_of

_CAMPAIGN = {"seed": "seed", "studies": "number of studies"}  # that must agree, by key


def merge_logs(parts: Sequence[Logs]) -> Logs:
    """Return the logs of all parts as those of one campaign or competition.

    Raises:
        ValueError: The parts are of different protocols, or a study is in two parts with other
            numbers; the message names both parts and what differs.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        if part.is_ours != first.is_ours:
            ours, other = (first, part) if first.is_ours else (part, first)
            raise ValueError(
                f"{other.path} has logs of AlgoPerf's runner and {ours.path} those of a campaign: "
                "they do not join."
            )
        if not first.is_ours and part.competition != first.competition:
            raise ValueError(
                f"{first.path} and {part.path} have other targets in their meta data. Add "
                "--targets."
            )
    if first.is_ours:
        _check_protocols(parts)
    owners = _owners(parts)
    kept = [
        _renamed(part, [trial for trial in part.all_trials if owners[trial.key[:4]] is part])
        for part in parts
    ]
    identities = [part.study_identities for part in kept]
    studies = {
        (study.contender, study.workload, study.study): study
        for part in reversed(parts)
        for study in part.studies
    }
    return dataclasses.replace(
        first,
        path=Path(" + ".join(str(part.path) for part in parts)),
        # Sorted, so that no sum depends on the order of the parts.
        trials=tuple(sorted((t for part in kept for t in part.trials), key=lambda t: t.key)),
        unrecorded=tuple(sorted((t for p in kept for t in p.unrecorded), key=lambda t: t.key)),
        studies=tuple(study for _, study in sorted(studies.items())),
        campaign=_merged_campaign([part.campaign for part in parts]),
        identities={k: v for part in parts for k, v in part.identities.items()},
        study_identities={k: v for one in identities for k, v in one.items()},
        audits=tuple(dict.fromkeys(audit for part in parts for audit in part.audits)),
        oddities=tuple(oddity for part in kept for oddity in part.oddities),
    )  # fmt: skip


def write_merged(parts: Sequence[tuple[Path, str | None]], logs: Sequence[Logs], out: Path) -> None:
    """Copy the studies of all parts into one folder, which every command reads.

    Args:
        parts: The folders or archives, with the folder inside to read.
        logs: Their logs, already checked by :func:`merge_logs`.
        out: The folder to write; it must be empty or missing.

    Raises:
        ValueError: ``out`` has content, or a part cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder. Choose another --out.")
    target = out / "logs" if logs[0].is_ours else out
    for path, within in parts:
        for relative, content in _study_files(path, within):
            file = target / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():  # the same study of an earlier part
                file.write_bytes(content)
    campaign = _merged_campaign([part.campaign for part in logs])
    if campaign is not None:
        (out / CAMPAIGN_FILE).write_text(json.dumps(dict(campaign), indent=1), encoding="utf-8")


def _study_files(path: Path, within: str | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files of studies, by their path from the submission on."""

    def wanted(name: str) -> int | None:
        place = locate(name)
        return MAX_BYTES if place is not None and place.cell is not None else None

    for entry in walk_files(path, within, wanted, Oddities()):
        if entry.content is not None and (place := locate(entry.path)) is not None:
            yield entry.path[len(place.root) :].lstrip("/"), entry.content


def _check_protocols(parts: Sequence[Logs]) -> None:
    """Compare each part with those before it; see the module for what must agree."""
    known: dict[Any, tuple[Any, Path]] = {}
    for part in parts:
        campaign = part.campaign or {}
        facts: Iterator[tuple[str, str, Any]] = itertools.chain(
            ((what, "", campaign[name]) for name, what in _CAMPAIGN.items() if name in campaign),
            _facts_of_records(part),
        )
        for what, where, value in facts:
            before, path = known.setdefault((what, where), (value, part.path))
            if before != value:
                on = f" on {plain(where)}" if where else ""
                raise ValueError(
                    f"{path} and {part.path} do not join: they differ in the {what}{on}"
                    f"{_both(before, value)}. {_remedy(what, (before, value), (path, part.path))}"
                )


def _remedy(what: str, values: tuple[Any, Any], paths: tuple[Path, Path]) -> str:
    """Return how parts that differ can be read after all."""
    if what != _CAMPAIGN["studies"]:
        return "Read them one by one."
    behind = paths[0] if values[0] < values[1] else paths[1]
    words = ["python", "-m", "tuning", "compare", str(behind / CAMPAIGN_FILE)]
    words += ["--studies", str(max(values)), "--out", str(behind)]
    return f"Add the missing studies with `{plain(shlex.join(words))}`, or read them one by one."


def _both(one: Any, other: Any) -> str:
    simple = all(isinstance(value, int | float) for value in (one, other))
    return f", {one} and {other}" if simple else ""


def _facts_of_records(part: Logs) -> Iterator[tuple[str, str, Any]]:
    """Yield what must agree, by its name and the workload, study or contender that it is about."""
    for trial in part.trials:
        record: TrialRecord = trial.record
        identity = part.identity(record)
        yield "target", record.workload, record.target
        yield "budget of a study", record.workload, record.budget.study
        yield "currency of budgets", record.workload, record.budget.currency
        yield "evaluation period", record.workload, record.budget.eval_period
        if identity is not None:
            version = digest_of(identity, WORKLOAD_PARTS)
            yield "version of the workload, its data, targets or settings", record.workload, version
        seeds = record.seeds
        place = f"{record.workload}, study {record.study}, trial {record.trial}"
        yield "seed", place, seeds.trial
        yield "fixed batch", place, seeds.fixed_batch
        yield "code", f"{record.workload}, contender {record.contender}", record.digest


def _owners(parts: Sequence[Logs]) -> dict[StudyKey, Logs]:
    """Return which part each study is taken from: the first that has it.

    Raises:
        ValueError: Another part has it too, with other numbers.
    """
    owners: dict[StudyKey, Logs] = {}
    grouped = [part.grouped(lambda key: key[:4]) for part in parts]
    for part, studies in zip(parts, grouped, strict=True):
        for key, trials in studies.items():
            owner = owners.setdefault(key, part)
            if owner is part:
                continue
            before = next(g for p, g in zip(parts, grouped, strict=True) if p is owner)[key]
            if list(map(_content, before)) != list(map(_content, trials)):
                submission, workload, _, study = key
                raise ValueError(
                    f"{owner.path} and {part.path} both have study {study} of {plain(submission)} "
                    f"on {plain(workload)}, with other numbers. Leave one out."
                )
    return owners


def _content(trial: Trial) -> tuple[Any, ...]:
    """Return what two copies of a trial have in common."""
    rows = trial.evaluations
    table = None if rows is None else [rows.column(name).tobytes() for name in sorted(rows.columns)]
    return trial.key, trial.record, table


def _renamed(part: Logs, kept: Sequence[Trial]) -> Logs:
    """Return a part with the trials that are kept, and with its path before each place."""
    name, chosen = part.path.name, {trial.where for trial in kept}

    def renamed(trials: Sequence[Trial]) -> tuple[Trial, ...]:
        return tuple(
            dataclasses.replace(trial, where=f"{name}/{trial.where}")
            for trial in trials
            if trial.where in chosen
        )

    return dataclasses.replace(
        part,
        trials=renamed(part.trials),
        unrecorded=renamed(part.unrecorded),
        oddities=tuple(o._replace(where=f"{name}/{o.where}") for o in part.oddities),
    )


def _merged_campaign(campaigns: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """Return the campaign with the contenders, workloads and variants of all."""
    known = [campaign for campaign in campaigns if campaign is not None]
    if not known:
        return None
    merged = dict(known[0])
    for name in ("contenders", "workloads"):
        merged[name] = list(dict.fromkeys(one for campaign in known for one in campaign[name]))
    names = list(dict.fromkeys(campaign["name"] for campaign in known))
    merged["name"] = " + ".join(names)
    if any("variants" in campaign for campaign in known):
        merged["variants"] = {k: v for c in known for k, v in c.get("variants", {}).items()}
    if any(campaign.get("source") != merged.get("source") for campaign in known):
        source = _merged_source(known)
        merged.pop("source", None)
        merged |= {"source": source} if source else {}
    return merged


def _merged_source(campaigns: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the one file of campaigns, narrowed to all of their contenders and workloads.

    ``None`` if they come from several files, or from one with other changes.
    """
    sources = [campaign.get("source") for campaign in campaigns]
    first = sources[0]
    if first is None:
        return None
    given: dict[str, str] = {}
    for campaign, source in zip(campaigns, sources, strict=True):
        if source is None or _unchanged(source) != _unchanged(first):
            return None
        document = tomllib.loads(source["toml"]) | source["changes"]
        given |= dict(zip(campaign["contenders"], document["contenders"], strict=True))
    workloads = list(dict.fromkeys(w for campaign in campaigns for w in campaign["workloads"]))
    changes = {"contenders": list(given.values()), "workloads": workloads}
    return {**first, "changes": {**first["changes"], **changes}}


def _unchanged(source: Mapping[str, Any]) -> Any:
    """Return a campaign's file and its changes, except what parts of one campaign may choose."""
    changes = {k: v for k, v in source["changes"].items() if k not in ("contenders", "workloads")}
    return source["file"], source["toml"], changes
