"""What scoring the v0.5 competition costs, ours against the official package: time and memory.

    python tests/performance/bench_scoring.py CHECKOUT LOGS TARGETS

CHECKOUT is one of mlcommons/submissions_algorithms, LOGS the extracted `external_tuning`, TARGETS
its workload_targets_v05.json. Both are whole processes that read the same logs and print the same
scores, one after the other in each round; the official one also writes its summaries and a PDF, as
it always does. Peak memory is that of the process and its children.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Return seconds on the wall and of the processors, peak memory in MB, and what was printed."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=printed, stderr=subprocess.DEVNULL,
            env=os.environ | {"MPLBACKEND": "Agg"},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command} ended with exit code {process.returncode}.")
        printed.seek(0)
        spent = usage.ru_utime + usage.ru_stime
        return seconds, spent, usage.ru_maxrss / 1024, printed.read()


def main() -> None:
    """Print the medians of both and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("logs", type=Path)
    parser.add_argument("targets", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logs, targets = str(arguments.logs.resolve()), str(arguments.targets.resolve())
    ours = [sys.executable, "-m", "analysis", "score", logs, "--targets", targets,
            "--rules", "algoperf", "--format", "json"]  # fmt: skip
    costs: dict[str, list[tuple[float, float, float]]] = {"official": [], "ours": []}
    with tempfile.TemporaryDirectory() as out:
        official = [sys.executable, "-m", "scoring.score_submissions", "--output_dir", out]
        official += ["--workload_targets", targets, "--submission_directory", logs]
        official += ["--compute_performance_profiles"]
        for _ in range(arguments.rounds):
            *cost, _ = run(official, arguments.checkout)
            costs["official"].append(tuple(cost))
            *cost, printed = run(ours, ROOT)
            costs["ours"].append(tuple(cost))
        with (Path(out) / "scores.csv").open() as file:
            theirs = {row["submission"]: float(row["score"]) for row in csv.DictReader(file)}
    scores = json.loads(printed)["scores"]
    apart = max(abs(scores[name] - score) for name, score in theirs.items())
    if scores.keys() != theirs.keys():
        raise SystemExit(f"Different submissions: {sorted(scores.keys() ^ theirs.keys())}.")
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in costs.items()
    }
    for name, (wall, spent, memory) in medians.items():
        print(
            f"{name:>8}: {wall:6.2f} s on the wall, {spent:6.2f} s of processors, {memory:5.0f} MB"
        )
    ratios = [o / t for o, t in zip(medians["ours"], medians["official"], strict=True)]
    print("   ratio: {:6.3f}                {:6.3f}                    {:6.3f}".format(*ratios))
    print(f"{len(scores)} scores, at most {apart:.1e} apart; medians of {arguments.rounds} rounds")


if __name__ == "__main__":
    main()
