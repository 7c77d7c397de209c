"""Rules on files: where they are, and that those of a trial are there."""

from collections.abc import Iterator

from analysis.checks.subject import LogSubject, log_rule, oddity_rule, ruleset_of
from analysis.logs.files import MAX_EVALUATION_BYTES
from metaopt.bench import identity
from metaopt.bench.records import (
    CAMPAIGN_FILE,
    EVAL_FILE,
    FAILURES,
    HPARAMS_FILE,
    RUN_FILE,
    STUDY_FILE,
)

_LAYOUT = "<submission>/study_<j>/<workload>_<framework>/trial_<i>/"


def _without_evaluations(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        record = subject.record(trial)
        if record is not None and (record.status in FAILURES or not record.ledger.cost.steps):
            continue
        if EVAL_FILE not in trial.files:
            yield trial.where, f"no {EVAL_FILE}"
        elif trial.evaluations is not None and not (
            trial.evaluations.rows or trial.evaluations.faults
        ):
            yield trial.where, f"{EVAL_FILE} has no rows"


def _wrong_hparams(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        ruleset, there = ruleset_of(trial), HPARAMS_FILE in trial.files
        record = subject.record(trial)
        if ruleset == "external" and not there and not (record and not record.hyperparameters):
            yield trial.where, f"external tuning without {HPARAMS_FILE}"
        elif ruleset == "self" and there:
            yield trial.where, f"self-tuning with {HPARAMS_FILE}"


def _without(name: str):
    def find(subject: LogSubject) -> Iterator[tuple[str, str]]:
        for trial in subject.trials:
            if not any(file.startswith(f"{name}_") for file in trial.files):
                yield trial.where, f"no {name}_0.json"

    return find


def _wrong_records(subject: LogSubject) -> Iterator[tuple[str, str]]:
    if not subject.is_ours:
        return
    for trial in subject.trials:
        record = subject.parsed.get(trial.where)
        if RUN_FILE not in trial.files:
            yield trial.where, f"no {RUN_FILE}: unfinished"
        elif isinstance(record, str):
            yield f"{trial.where}/{RUN_FILE}", record
        elif record is not None:
            # Our folders carry AlgoPerf's names of its workloads.
            name = record.workload.removeprefix("algoperf_")
            told = record.contender, name, record.study, record.trial
            key = trial.key
            if told != (key.submission, key.workload, key.study, key.trial):
                what = f"the record of trial {record.trial} of study {record.study} of "
                yield f"{trial.where}/{RUN_FILE}", what + f"{record.contender} on {record.workload}"


def _wrong_studies(subject: LogSubject) -> Iterator[tuple[str, str]]:
    if not subject.is_ours:
        return
    groups = subject.grouped(lambda key: key[:4])
    for cell, trials in groups.items():
        folder = trials[0].where.rpartition("/")[0]
        study = subject.studies.get(cell)
        if study is None:
            yield folder, f"no {STUDY_FILE}: unfinished"
        elif isinstance(study, str):
            yield f"{folder}/{STUDY_FILE}", study
        elif study.trials != len(trials):
            yield folder, f"{study.trials} trials were run, {len(trials)} are here"
        if isinstance(wrong := subject.identities.get(cell), str):
            yield f"{folder}/{identity.FILE}", wrong


def _wrong_campaign(subject: LogSubject) -> Iterator[tuple[str, str]]:
    if not subject.is_ours:
        return
    campaign = subject.logs.campaign
    if campaign is None:
        yield ".", f"no {CAMPAIGN_FILE}: what should have run is not known"
        return
    names = {"contenders": set(), "workloads": set()}
    for name in names:
        listed = campaign.get(name)
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            yield CAMPAIGN_FILE, f"{name} is no list of names"
            return
        names[name] = set(listed)
    found = {"contenders": set(subject.logs.submissions)}
    found["workloads"] = {record.workload for _, record in subject.records}
    for name, listed in names.items():
        if missing := sorted(listed - found[name]):
            yield ".", f"{name} of the campaign that have no trial: {missing}"
        if extra := sorted(found[name] - listed):
            yield ".", f"{name} that the campaign does not have: {extra}"


RULES = (
    oddity_rule(
        "files-stray",
        f"everything lies in {_LAYOUT}",
        means="The official scorer skips what lies elsewhere, or stops at it; ours skips it.",
        mend="Move it to where it belongs, or take it out.",
    ),
    oddity_rule(
        "files-links",
        "there are files and folders only",
        means="A link, device or pipe leads to something that is not in the logs; it is never "
        "followed or opened.",
        mend="Put the file itself there.",
    ),
    oddity_rule(
        "files-outside",
        "members of a tar stay inside of it",
        means="An absolute path, or one with .., would be written elsewhere by who extracts it.",
        mend="Pack the folder of logs with relative paths.",
    ),
    oddity_rule(
        "files-twice",
        "a tar has each file once",
        means="Whoever extracts it gets the last one, whoever reads it the first.",
        mend="Pack the folder anew instead of appending to the tar.",
    ),
    oddity_rule(
        "files-size",
        "files are within the limits",
        means=f"{EVAL_FILE} may have {MAX_EVALUATION_BYTES:,} bytes, a JSON file 1,048,576; what "
        "is larger is not read.",
        mend="Evaluate less often; keep other data elsewhere.",
    ),
    oddity_rule(
        "files-unreadable",
        "files can be read",
        means="The system refused to open it.",
        mend="Correct its permissions.",
    ),
    log_rule(
        "files-evaluations",
        f"every trial has an {EVAL_FILE} with rows",
        _without_evaluations,
        means="Such a trial crashed before its first evaluation. It is a miss.",
        mend="Run it again, or leave it as the miss that it is.",
    ),
    log_rule(
        "files-hparams",
        f"{HPARAMS_FILE} is there under external tuning and only there",
        _wrong_hparams,
        means="What was tuned cannot be seen, or something was tuned that should not be.",
        mend="Run the trial under the ruleset that its flags name.",
    ),
    log_rule(
        "files-flags",
        "every trial has its flags",
        _without("flags"),
        means="Ruleset, seed and framework of the run are not known.",
        mend="Copy flags_0.json from the machine that ran it.",
    ),
    log_rule(
        "files-meta",
        "every trial has its meta data",
        _without("meta_data"),
        means="Hardware, budget and targets of the run are not known.",
        mend="Copy meta_data_0.json from the machine that ran it.",
    ),
    log_rule(
        "files-run",
        f"every trial of ours has its {RUN_FILE}",
        _wrong_records,
        means="Without a valid record of its own a trial is not counted.",
        mend="Run the campaign's command again: it finishes what is unfinished.",
    ),
    log_rule(
        "files-study",
        f"every study of ours has its {STUDY_FILE} and all of its trials",
        _wrong_studies,
        means="The study is unfinished, or some of its trials are not here.",
        mend="Run the campaign's command again: it finishes what is unfinished.",
    ),
    log_rule(
        "files-campaign",
        f"{CAMPAIGN_FILE} is beside our logs and names what ran",
        _wrong_campaign,
        means="What should have run, and so what is missing, is not known or not here.",
        mend="Give the campaign's whole output folder, and run its command to the end.",
    ),
)
