"""Rules on files: their places, and the files that a trial must have."""

from collections.abc import Iterator

from analysis.checks.rules import oddity_rule, rule
from analysis.logs.logs import Logs
from analysis.logs.official_records import ruleset_of
from analysis.logs.trial_files import MAX_DOCUMENT_BYTES, MAX_EVALUATION_BYTES
from metaopt.bench.records import CAMPAIGN_FILE, EVAL_FILE, HPARAMS_FILE, RUN_FILE, STUDY_FILE

_UNFINISHED = "Run the campaign's command again: it finishes the unfinished studies."

oddity_rule(
    "files-stray",
    "everything lies in <submission>/study_<j>/<workload>_<framework>/trial_<i>/",
    means="The official scorer skips files that lie elsewhere, or stops at them; ours skips them.",
    fix="Move it to its place, or remove it.",
)
oddity_rule(
    "files-links",
    "there are files and folders only",
    means="A link, device or pipe leads out of the logs; it is never followed or opened.",
    fix="Replace it by the file itself.",
)
oddity_rule(
    "files-outside",
    "members of a tar stay inside it",
    means="Extracting an absolute path, or one with .., writes elsewhere.",
    fix="Pack the folder of logs with relative paths.",
)
oddity_rule(
    "files-twice",
    "a tar has each file once",
    means="Extracting gives the last one, reading the first.",
    fix="Pack the folder again instead of appending to the tar.",
)
oddity_rule(
    "files-size",
    "files are within the limits",
    means=f"{EVAL_FILE} may have {MAX_EVALUATION_BYTES:,} bytes, a JSON file "
    f"{MAX_DOCUMENT_BYTES:,}; larger files are not read.",
    fix="Evaluate less often; keep other data elsewhere.",
)
oddity_rule(
    "files-unreadable",
    "files can be read",
    means="The system refused to open it.",
    fix="Correct its permissions.",
)
oddity_rule(
    "files-evaluations",
    f"every trial has an {EVAL_FILE} with rows",
    means="The trial crashed before its first evaluation. Its target counts as missed.",
    fix="Run it again, or accept the miss.",
)


@rule(
    "files-hparams",
    f"{HPARAMS_FILE} is there under external tuning and only there",
    means="The tuned values are not known, or something was tuned that should not be.",
    fix="Run the trial under the ruleset that its flags name.",
)
def wrong_hparams(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials whose hyperparameters contradict their ruleset."""
    for trial in logs.all_trials:
        ruleset, there = ruleset_of(trial.document("flags")), HPARAMS_FILE in trial.files
        needs_none = logs.is_ours and trial.record and not trial.record.hyperparameters
        if ruleset == "external" and not there and not needs_none:
            yield trial.where, f"external tuning without {HPARAMS_FILE}"
        elif ruleset == "self" and there:
            yield trial.where, f"self-tuning with {HPARAMS_FILE}"


@rule(
    "files-flags",
    "every trial has its flags, of one ruleset",
    means="Ruleset, seed and framework of the run are not known.",
    fix="Copy flags_0.json from the machine that ran it.",
)
def without_flags(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials without flags."""
    return _without("flags", logs)


@rule(
    "files-meta",
    "every trial has its meta data",
    means="Hardware, budget and targets of the run are not known.",
    fix="Copy meta_data_0.json from the machine that ran it.",
)
def without_meta_data(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials without meta data."""
    return _without("meta_data", logs)


def _without(name: str, logs: Logs) -> Iterator[tuple[str, str]]:
    for trial in logs.all_trials:
        if not any(file.startswith(f"{name}_") for file in trial.files):
            yield trial.where, f"no {name}_0.json"


oddity_rule(
    "files-run",
    f"every trial of ours has its {RUN_FILE}",
    means="Without a valid record of its own, a trial does not count.",
    fix=_UNFINISHED,
)
oddity_rule(
    "files-study",
    f"every study of ours has its {STUDY_FILE} and all of its trials",
    means="The study is unfinished, or some of its trials are not here.",
    fix=_UNFINISHED,
)
oddity_rule(
    "files-campaign",
    f"{CAMPAIGN_FILE} is beside our logs and names all contenders and workloads",
    means="The planned runs, and so the missing ones, are not known or not here.",
    fix="Give the campaign's whole output folder, and run its command to the end.",
)
