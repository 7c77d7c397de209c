"""The layout of an output folder: AlgoPerf's, plus one ``run.json`` per trial.

    <out>/campaign.json                                  the campaign as it was started
    <out>/logs/<contender>/study_<j>/<workload>_jax/
        identity.json                                    what decides its results, as digests
        study.json                                       why the study ended, what it spent
        trial_<i>/
            eval_measurements.csv                        one row per evaluation, columns sorted
            hparams.json                                 external tuning only
            meta_data_0.json, flags_0.json               as AlgoPerf names them
            run.json                                     :class:`TrialRecord`; written last

A trial is finished when its ``run.json`` is there. Every file is written to a temporary name and
renamed, so a kill at any byte leaves the old file or the new one.
"""

from pathlib import Path

ALGOPERF_PREFIX = "algoperf_"  # of its workloads

RUN_FILE = "run.json"
STUDY_FILE = "study.json"
CAMPAIGN_FILE = "campaign.json"
EVAL_FILE = "eval_measurements.csv"
STALL_FILE = "stall.txt"  # the stacks of a process that took no step for too long
AUDIT_STALL_FILE = "audit_stall.txt"  # the same of an audit: its trial may be paused
HPARAMS_FILE = "hparams.json"


def trial_directory(logs: Path, contender: str, study: int, workload: str, trial: int) -> Path:
    """Return the folder of one trial under ``<out>/logs``."""
    return study_directory(logs, contender, study, workload) / f"trial_{trial}"


def study_directory(logs: Path, contender: str, study: int, workload: str) -> Path:
    """Return the folder of one study under ``<out>/logs``."""
    return logs / contender / f"study_{study}" / f"{algoperf_name(workload)}_jax"


def algoperf_name(workload: str) -> str:
    """Return the name that AlgoPerf, its logs and submissions know a workload by.

    Examples:
        >>> algoperf_name("algoperf_wmt"), algoperf_name("digits_mlp")
        ('wmt', 'digits_mlp')
    """
    return workload.removeprefix(ALGOPERF_PREFIX)
