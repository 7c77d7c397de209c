"""Workers as a SLURM array job, through submitit."""

import shutil
import sys
from pathlib import Path
from typing import Any

_FOLDER = "slurm"
# Options with a name in submitit; all others go to sbatch unchanged.
_NAMED = {"timeout_min": int, "mem_gb": float, "cpus_per_task": int, "gpus_per_node": int}
_DAY_MINUTES = 1440


def submit_workers(
    command: list[str], workers: int, out: Path, options: list[str], *, cluster: str = "slurm"
) -> tuple[str, list[Any]]:
    """Submit an array job of workers; returns a line for the user and submitit's jobs.

    Args:
        command: The arguments of ``python`` for one worker.
        workers: The number of workers.
        out: The campaign's folder on a shared disk; logs go to ``slurm/`` in it.
        options: ``name=value``: of submitit (timeout_min, a day by default; mem_gb; cpus_per_task;
            gpus_per_node) or of ``sbatch``, such as ``partition=gpu``.
        cluster: Submitit's cluster; ``local`` runs the workers on this machine.

    Raises:
        ValueError: An option has another form, or submitit or SLURM is missing.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("--slurm needs submitit: pip install submitit.") from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ValueError("--slurm needs SLURM's sbatch, which is not on this machine.")
    folder = out / _FOLDER
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(name="metaopt-bench", **_parameters(options))
    function = submitit.helpers.CommandFunction([sys.executable, *command])
    with executor.batch():  # one array job
        jobs = [executor.submit(function) for _ in range(workers)]
    ids = ", ".join(job.job_id for job in jobs)
    return f"{workers} workers: {ids}; logs in {folder}, results in {out}", jobs


def _parameters(options: list[str]) -> dict[str, Any]:
    named: dict[str, Any] = {"timeout_min": _DAY_MINUTES}
    others: dict[str, str] = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not (name and separator):
            raise ValueError(f"--slurm-option takes name=value, got {option!r}.")
        if name not in _NAMED:
            others[name.replace("-", "_")] = value
            continue
        try:
            named[name] = _NAMED[name](value)
        except ValueError:
            raise ValueError(f"--slurm-option {name} must be a number, got {value!r}.") from None
    return {**named, "slurm_additional_parameters": others}
