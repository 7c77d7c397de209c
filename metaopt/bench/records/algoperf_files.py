"""AlgoPerf's files about a trial, so that its tools read ours."""

from pathlib import Path
from typing import Any

from metaopt.bench.records.atomic_files import write_json
from metaopt.bench.records.layout import algoperf_name


def write_algoperf_files(
    directory: Path,
    *,
    workload: Any,
    submission: str,
    ruleset: str,
    seed: int,
    batch_size: int,
    environment: dict[str, Any],
) -> None:
    """Write ``meta_data_0.json`` and ``flags_0.json`` as AlgoPerf v0.6 names their entries."""
    hardware, software = environment["hardware"], environment["software"]
    names = ("step_hint", "max_allowed_runtime_sec", "eval_period_time_sec")
    gpu = hardware["backend"] != "cpu"
    write_json(
        directory / "meta_data_0.json",
        {
            **{f"workload.{name}": getattr(workload, name) for name in names},
            "os_platform": hardware["platform"],
            "python_version": software["python"],
            "git_commit_hash": environment["git"]["commit"],
            "cpu_model_name": hardware["cpu"],
            "cpu_count": hardware["cpu_count"],
            "gpu_model_name": hardware["devices"][0] if gpu else None,
            "gpu_count": len(hardware["devices"]) if gpu else 0,
            "rng_seed": seed,
        },
    )
    write_json(
        directory / "flags_0.json",
        {
            "framework": "jax",
            "workload": algoperf_name(workload.name),
            "submission_path": f"{submission}/submission.py",
            "tuning_ruleset": "self" if ruleset == "self-tuning" else "external",
            "rng_seed": seed,
            "global_batch_size": batch_size,
        },
    )
