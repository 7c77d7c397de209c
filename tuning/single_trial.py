"""One trial, outside any campaign: ``python -m tuning run``."""

from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.contract.spaces import check_point
from metaopt.bench.records import TrialRecord
from metaopt.bench.records.identity import digest_of
from metaopt.bench.records.layout import AUDIT_STALL_FILE, STALL_FILE
from metaopt.bench.trial.audits.recording import Recorder
from metaopt.bench.trial.audits.replaying import write_audit
from metaopt.bench.trial.plan import derive_seeds, plan_trial
from metaopt.bench.trial.progress import is_unfinished
from metaopt.bench.trial.runner import run_trial
from metaopt.bench.trial.stalls import announced_stall
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign
from tuning.contenders import SUBMISSIONS, Contender, load_submission
from tuning.identities import claim_study, identify
from tuning.locks import hold
from tuning.output_folders import next_folder, numbered_folders
from tuning.studies import LOGS


def run_single(
    submission_name: str,
    workload_name: str,
    hparams: list[str],
    *,
    budget: str,
    eval_period: str | None,
    seed: int,
    out: Path | None,
    stall_seconds: float,
) -> tuple[TrialRecord, Path]:
    """Run one trial and audit it; a killed one goes on from its checkpoint when called again.

    Args:
        submission_name: Name or folder of a submission.
        workload_name: Name of a workload.
        hparams: ``name=value`` pairs over the submission's ``DEFAULTS``.
        budget: Of the trial, as in a campaign.
        eval_period: Cost between evaluations; ``None`` takes a campaign's default.
        seed: Of the run.
        out: Output folder; ``None`` takes the newest ``runs/run-N`` that holds the same trial
            unfinished, else a new one.
        stall_seconds: Without a step for so long, the trial is recorded as stalled and the process
            ends.

    Returns:
        The record and its folder.

    Raises:
        FileNotFoundError: The workload's data is not there.
        ValueError: A name or a value is wrong, or ``out`` holds a finished trial, or one that began
            with another version of something.
    """
    submission = load_submission(submission_name, SUBMISSIONS)
    workload = get_workload(workload_name)
    workload.check_data()
    contender = f"{submission.name}+none" if submission.ruleset == "external" else submission.name
    point = None
    if submission.ruleset == "external" or hparams:
        point = _parse_hyperparameters(hparams, submission.defaults)
    document = {"name": "run", "seed": seed, "studies": 1, "budget": budget}
    document |= {"trial_budget": budget, "eval_period": eval_period}
    document |= {"workloads": [workload_name], "contenders": ["adamw+none"]}
    limits = make_campaign(document, "run").limits(workload)
    seeds = derive_seeds(seed, workload, 1, 1)
    targets = workload.targets.validation, workload.targets.test
    identity = identify(Contender(contender, submission, None, None), workload, targets)
    plan = plan_trial(
        submission,
        workload,
        campaign="run",
        contender=contender,
        digest=digest_of(identity),
        study=1,
        trial=1,
        seeds=seeds,
        hyperparameters=point,
        budget=limits.model_copy(update={"trial": limits.study}),
        target=targets[0],
        test_target=targets[1],
    )

    def folder_in(out: Path) -> Path:
        return records.trial_directory(out / LOGS, contender, 1, workload_name, 1)

    if out is None:
        begun = (path for path in numbered_folders("run") if is_unfinished(plan, folder_in(path)))
        out = next(begun, None) or next_folder("run")
    folder = folder_in(out)
    if (folder / records.RUN_FILE).exists():
        raise ValueError(
            f"{folder} holds a finished trial; use another --out, or none for a new folder."
        )
    with hold(out / ".locks" / "run.lock", f"Output folder {str(out)!r}"):
        claim_study(folder.parent, identity)
        recorder = Recorder()
        with announced_stall(
            folder / STALL_FILE,
            f"tuning: the trial has stalled, with no step for {stall_seconds:g} s. Run the same "
            "command again to record it.",
        ):
            record = run_trial(plan, folder, stall_seconds=stall_seconds, recorder=recorder)
        if recorder.all_windows():
            with announced_stall(
                folder / AUDIT_STALL_FILE,
                f"tuning: the audit did not end within {stall_seconds:g} s. The trial's record is "
                f"in {folder}.",
            ):
                write_audit(recorder, 0.0, stall_seconds)
        return record, folder


def _parse_hyperparameters(pairs: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    if not defaults:
        raise ValueError("This submission has no hyperparameters, it takes no --hparams.")
    point = dict(defaults)
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or name not in defaults:
            raise ValueError(f"--hparams takes name=value with a name of {[*defaults]}: {pair!r}.")
        point[name] = _as_type_of(defaults[name], name, text)
    return check_point(point, "--hparams")


def _as_type_of(default: Any, name: str, text: str) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--hparams {name} must be true or false, got {text!r}.")
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"--hparams {name} must be a number, got {text!r}.") from None
    return int(number) if isinstance(default, int) and number.is_integer() else number
