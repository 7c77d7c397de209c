"""Our scores of the rules algoperf are those of the official package, run beside ours."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.logs.competition import Competition, read_official_targets
from analysis.logs.reader import read_logs
from analysis.scoring.scores import score_logs
from metaopt.bench import records

# Runs the official scorer. Of trials that hit at the same evaluation it takes the one that its file
# system lists first: here that is the cheapest, as in ours.
_DRIVER = """
import os, runpy, sys
root, order = sys.argv[1], sys.argv[2].split("|")
real = os.listdir
rank = {path: number for number, path in enumerate(order)}
def listdir(path="."):
    place = lambda name: rank.get(os.path.relpath(os.path.join(path, name), root), -1)
    return sorted(real(path), key=place)
os.listdir = listdir
sys.argv = ["scoring"] + sys.argv[3:]
runpy.run_module("scoring.score_submissions", run_name="__main__")
"""


def score_with_the_official_package(root, targets, order, out):
    checkout = os.environ.get("METAOPT_ALGOPERF_SCORING")
    if not checkout or not (Path(checkout) / "scoring" / "score_submissions.py").is_file():
        pytest.skip("METAOPT_ALGOPERF_SCORING, a checkout of submissions_algorithms, is not set")
    arguments = ["--workload_targets", targets, "--submission_directory", root, "--output_dir", out]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DRIVER, root, "|".join(order),
         "--compute_performance_profiles", *arguments],
        cwd=checkout, capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    with (out / "scores.csv").open() as file:
        return {row["submission"]: float(row["score"]) for row in csv.DictReader(file)}


def test_the_official_scorer_gives_the_same_on_a_campaign_of_ours(build, tmp_path):
    b = build(tmp_path / "out", ["a+halton", "b+halton", "c"], ["easy", "hard"], 3)
    hits = {
        "a+halton": {"easy": [[None, 100.0, 50.0], [200.0, None], [10.0, 90.0]],
                     "hard": [[None, 70.0], [None], [80.0]]},
        "b+halton": {"easy": [[60.0], [61.0, 63.0], [None, 64.0]],
                     "hard": [[210.0, None], [190.0], [200.0]]},
        "c": {"easy": [[100.0], [120.0], [110.0]], "hard": [[None], [None], [30.0]]},
    }  # fmt: skip
    for contender, workloads in hits.items():
        for workload, studies in workloads.items():
            for study, trials in enumerate(studies, 1):
                b.whole_study(contender, workload, study, trials)
    root = tmp_path / "out" / "logs"
    target = {"target_metric_name": "loss", "validation_target_value": 0.5, "step_hint": 10}
    records.write_json(tmp_path / "targets.json", {
        "benchmark_version": "0.6", "base_workloads": ["easy", "hard"], "held_out_workloads": [],
        "workloads": {"easy": target, "hard": target},
    })  # fmt: skip
    logs = read_logs(
        root.parent, None, Competition(read_official_targets(tmp_path / "targets.json"))
    )
    trials = [(t.record.reached.cost.seconds if t.record.reached else math.inf, t.where)
              for t in logs.trials]  # fmt: skip
    order = [where.removeprefix("logs/") for _, where in sorted(trials)]

    theirs = score_with_the_official_package(
        root, tmp_path / "targets.json", order, tmp_path / "scored"
    )

    scores = score_logs(logs, "algoperf").scores
    ours = {name: views["given"] for name, views in scores.items()}
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert len(set(ours.values())) == 3
