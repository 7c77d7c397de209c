"""What it is worth that each process of a campaign keeps to its share of the cores.

    python -m tests.performance.bench_workers --workloads digits_mlp,digits_transformer

A study of AdamW for each core, all at once: each process on cores of its own, as a campaign runs
them, and all on all cores. Rounds alternate. Times are those of the trials' records, without
compilation: training and evaluation, by the clock.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from metaopt.bench import records
from tuning.campaign import make_campaign
from tuning.cores import available_cores, share_cores
from tuning.executor import run_campaign


def all_cores(cores: Sequence[int], processes: int) -> list[list[int]]:
    """Let every process run on every core."""
    return [list(cores)] * processes


WAYS = {"own cores": share_cores, "all cores": all_cores}


def measure(workload: str, steps: int, share: object, folder: Path) -> float:
    """Return milliseconds of a step, evaluations included, with as many studies as cores."""
    processes = len(available_cores())
    document = {
        "name": "workers",
        "budget": f"{steps}grads",
        "trial_budget": f"{steps}grads",
        "eval_period": f"{steps // 2}grads",
        "stop_at_target": False,
        "studies": processes,
        "workloads": [workload],
        "contenders": ["adamw+none"],
        "targets": {workload: {"metric": "validation/loss", "value": 0.0, "better": "lower"}},
    }
    with mock.patch("tuning.executor.share_cores", share):
        run_campaign(make_campaign(document, "bench"), folder, workers=processes)
    seconds = 0.0
    for path in folder.rglob(records.RUN_FILE):
        ledger = records.read_trial(path).ledger
        seconds += ledger.cost.seconds - ledger.compilation_seconds + ledger.evaluation_seconds
    return 1000 * seconds / (steps * processes)


def main() -> None:
    """Print milliseconds of a step both ways, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", default="digits_mlp,digits_transformer")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{len(available_cores())} processes; ms of a step: " + ", ".join(WAYS))
    for workload in arguments.workloads.split(","):
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(arguments.rounds):
            for name, share in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    found[name].append(measure(workload, arguments.steps, share, Path(folder)))
        own, everybody = (statistics.median(found[name]) for name in WAYS)
        print(f"{workload:24}{own:10.2f}{everybody:10.2f}   {everybody / own:.1f} times")


if __name__ == "__main__":
    main()
