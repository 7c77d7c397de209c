"""Logs of AlgoPerf's runner: rulesets, targets, and the records of all studies."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.logs.competition import Competition, OfficialTargets, Ruleset
from analysis.logs.layout import StudyKey
from analysis.logs.logs import Logs, Trial
from analysis.logs.oddities import Oddities
from analysis.logs.official_records import logged_target, ruleset_of, study_records
from analysis.logs.our_logs import note_preemptions
from analysis.logs.trial_files import NEEDED, PREEMPTIONS
from metaopt.bench import records
from metaopt.bench.measure.targets import Target


def official_logs(
    path: Path, found: Sequence[Trial], competition: Competition, oddities: Oddities
) -> Logs:
    """Return a competition's logs.

    Args:
        path: The folder or tar of the logs.
        found: The trials, without records.
        competition: The rules to read the logs by.
        oddities: The collection that oddities are added to.

    Raises:
        ValueError: The flags contradict the ruleset of the competition.
    """
    found = [_named(trial, competition) for trial in found]
    targets = competition.targets or _logged_targets(found)
    # Only a targets file names the version, which the limits depend on.
    limits = {ruleset: competition.limits(ruleset) for ruleset in ("external", "self")}
    rulesets = _rulesets(found, competition.ruleset, oddities)
    studies: dict[StudyKey, list[Trial]] = {}
    for trial in found:
        studies.setdefault(trial.key[:4], []).append(trial)
    counted: list[Trial] = []
    unscored: list[Trial] = []
    for (submission, workload, _, study), trials in studies.items():
        if workload not in targets.metrics:
            unscored += trials
            continue
        target = targets.target(workload)
        for trial in trials:
            _note_oddities(trial, target, oddities)
        ruleset = rulesets[submission]
        names = submission, workload, study
        derived = study_records(names, trials, target, ruleset, limits[ruleset], oddities)
        counted += [
            dataclasses.replace(trial, record=record)
            for trial, record in zip(trials, derived, strict=True)
        ]
    for workload in sorted({trial.key.workload for trial in unscored}):
        oddities.add("targets-known", workload, "no target: it is left out")
    return Logs(
        path, False, tuple(counted), tuple(unscored), oddities=oddities.all(),
        competition=dataclasses.replace(competition, targets=targets),
        due_studies=competition.limits("external").studies,
    )  # fmt: skip


def _named(trial: Trial, competition: Competition) -> Trial:
    """Return a trial under the name that its submission is shown by."""
    name = competition.names.get(trial.key.submission)
    if name is None:
        return trial
    return dataclasses.replace(trial, key=trial.key._replace(submission=name))


def _note_oddities(trial: Trial, target: Target, oddities: Oddities) -> None:
    evaluations = trial.evaluations
    if evaluations is None or not evaluations.rows:
        is_there = records.EVAL_FILE in trial.files
        if is_there if evaluations is None else evaluations.faults:
            return  # an oddity says why it cannot be read
        what = f"{records.EVAL_FILE} {'is missing' if evaluations is None else 'is empty'}: a miss"
        oddities.add("files-evaluations", trial.where, what)
        return
    preemptions = float(np.nan_to_num(evaluations.column(PREEMPTIONS)).max())
    note_preemptions(trial.where, preemptions, oddities)
    file = f"{trial.where}/{records.EVAL_FILE}"
    if target.metric not in evaluations.header:
        oddities.add("columns-metric", file, f"no column {target.metric}: a miss")
    if missing := [name for name in NEEDED if name not in evaluations.header]:
        oddities.add("columns-needed", file, f"no columns {missing}")


def _rulesets(
    found: Sequence[Trial], asked: Ruleset | None, oddities: Oddities
) -> dict[str, Ruleset]:
    """Return each submission's ruleset: the most frequent one in its flags."""
    counts: dict[str, Counter[Ruleset]] = {}
    for trial in found:
        mine = counts.setdefault(trial.key.submission, Counter())
        if (ruleset := ruleset_of(trial.document("flags"))) is not None:
            mine[ruleset] += 1
    rulesets: dict[str, Ruleset] = {}
    for submission, mine in counts.items():
        named: Ruleset = mine.most_common(1)[0][0] if mine else asked or "external"
        if asked is not None and named != asked:
            raise ValueError(
                f"The flags of {submission} say --tuning_ruleset={named}, which contradicts "
                f"--ruleset {asked}. Leave the option out, or choose a part with --within."
            )
        if len(mine) > 1:
            listed = ", ".join(f"{name} in {n} trials" for name, n in mine.most_common())
            oddities.add("files-flags", submission, f"flags of two rulesets: {listed}")
        rulesets[submission] = named
    return rulesets


def _logged_targets(found: Sequence[Trial]) -> OfficialTargets:
    """Return the most frequent target of each workload in the meta data of the logs.

    If the name of a workload contains the name of another, it is a variant of the other.
    """
    counts: dict[str, Counter[tuple[str, float]]] = {}
    for trial in found:
        target = logged_target(trial.document("meta_data"))
        if target is not None:
            told = target.metric.removeprefix("validation/"), target.value
            counts.setdefault(trial.key.workload, Counter())[told] += 1
    metrics = {name: told.most_common(1)[0][0] for name, told in sorted(counts.items())}
    base = tuple(name for name in metrics if not any(o in name for o in metrics if o != name))
    return OfficialTargets(base, tuple(name for name in metrics if name not in base), metrics)
