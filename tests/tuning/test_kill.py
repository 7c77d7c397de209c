"""A campaign that is killed again and again gives the table of one that is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metaopt.bench import records

pytestmark = pytest.mark.slow

KILLS = 20

CAMPAIGN = """
name = "kill"
budget = "{budget}"
studies = 2
eval_period = "10grads"
workloads = ["breast_cancer_logistic", "breast_cancer_logistic_fixed"]
contenders = ["metaopt", "adamw+tpe", "sgd+asha"]
"""


# As `tuning compare` does, without the report, which takes longer than the campaign.
RUN = """
import sys
from pathlib import Path
from tuning.campaign import read_campaign
from tuning.executor import run_campaign
run_campaign(read_campaign(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def command(folder, out):
    return [sys.executable, "-c", RUN, str(folder / "kill.toml"), str(out)]


def run_to_the_end(folder, out, root):
    subprocess.run(command(folder, out), cwd=root, check=True, stdout=subprocess.DEVNULL)


def table(out: Path) -> dict[str, tuple]:
    """Return everything of a campaign that does not depend on the time of day."""
    rows = {}
    for path in sorted((out / "logs").rglob("run.json")):
        trial = records.read_trial(path)
        metric = [
            (row["global_step"], row["gradient_evaluations"], row["validation/loss"])
            for row in records.read_evaluations(path.parent / records.EVAL_FILE)
        ]
        steps = trial.ledger.cost.steps, trial.ledger.cost.gradient_evaluations
        key = str(path.parent.relative_to(out))
        turns = [(s.rung, s.spent_before.steps, s.end.steps) for s in trial.segments]
        rows[key] = (trial.hyperparameters, trial.status, trial.seeds, steps, turns, metric)
    for path in sorted((out / "logs").rglob("study.json")):
        study = records.read_study(path)
        rows[str(path.relative_to(out))] = (study.ended, study.trials, study.spent.steps)
    return rows


@pytest.fixture
def campaign(tmp_path):
    (tmp_path / "kill.toml").write_text(CAMPAIGN.format(budget="10x"))
    return tmp_path


def test_sigkill_at_twenty_random_moments_changes_nothing(campaign, root, monkeypatch):
    # Restarts are quicker when compiled code is kept, so kills also fall into the work itself.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(campaign / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    run_to_the_end(campaign, campaign / "unbroken", root)
    expected = table(campaign / "unbroken")
    start = time.monotonic()
    run_to_the_end(campaign, campaign / "again", root)
    whole = time.monotonic() - start  # on this machine, as busy as it is
    assert table(campaign / "again") == expected
    generator = np.random.default_rng(0)
    outs, progress, finished = [campaign / "broken_1"], [], {}

    while len(progress) < KILLS:
        process = subprocess.Popen(
            command(campaign, outs[-1]), cwd=root, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(generator.uniform(0.2, 0.7) * whole)
        if process.poll() is not None:  # too quick for us: break another one, sooner
            whole *= 0.7
            outs.append(campaign / f"broken_{len(outs) + 1}")
            continue
        process.kill()  # the parent alone: its workers must notice
        process.wait()
        finished |= {path: path.read_bytes() for path in outs[-1].rglob("run.json")}
        progress.append((len(outs), len(list(outs[-1].rglob("run.json")))))
    run_to_the_end(campaign, outs[-1], root)  # the others have come to their end

    assert len(set(progress)) > 3, "kills should fall into different states of the campaign"
    for out in outs:
        assert table(out) == expected
    for path, content in finished.items():  # nothing that was finished was run again
        before, after = records.TrialRecord.model_validate_json(content), records.read_trial(path)
        assert after.segments[: len(before.segments)] == before.segments
        assert path.read_bytes() == content or before.status == "paused"


def test_a_second_process_on_the_same_folder_is_refused_by_name(campaign, root):
    out = campaign / "out"
    compare = [sys.executable, "-m", "tuning", "compare", str(campaign / "kill.toml")]
    compare += ["--out", str(out)]
    first = subprocess.Popen(compare, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (out / records.CAMPAIGN_FILE).exists():
            time.sleep(0.05)

        second = subprocess.run(compare, cwd=root, capture_output=True, text=True)

        assert second.returncode == 2
        assert f"in use by process {first.pid} on" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
