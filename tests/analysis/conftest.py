"""Builds small campaigns on disk, through the models that the referee writes with."""

import itertools
import json
import shutil
import tarfile

import pytest

from metaopt.bench import records
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import Target, targets_of
from metaopt.bench.records import Cost

ENVIRONMENT = {
    "software": {"jax": "1", "xla_flags": ""},
    "hardware": {"cpu": "abacus", "cpu_count": 1, "devices": ["beads"]},
    "git": {"commit": "0" * 40, "dirty": False},
}


class CampaignBuilder:
    """Writes trials that reach their target at a given cost, or do not."""

    def __init__(
        self, out, contenders, workloads, studies, budget=1000.0, scale=1.0,
        currency="gradient_evaluations",
    ):  # fmt: skip
        self.out, self.budget, self.scale, self.currency = out, budget, scale, currency
        self.spent = {}
        content = {"name": "made", "seed": 1, "studies": studies, "budget": "1000grads"}
        content |= {"workloads": workloads, "contenders": contenders}
        records.write_json(out / records.CAMPAIGN_FILE, content)

    def trial(self, contender, workload, study, cost, reached=None, rows=None, **changes):
        """Add a trial of ``cost`` that met the target at ``reached``; costs in gradients."""
        key = contender, workload, study
        number, before = self.spent.get(key, (0, 0.0))
        self.spent[key] = number + 1, before + cost
        hit = None
        if reached is not None:
            episode = changes.pop("episode_cost", reached)
            hit = records.Reached(
                evaluation=0, cost=self._cost(reached), episode_cost=self._cost(episode)
            )
        losses = [(cost / 2, 0.9), (cost, 0.9)] if reached is None else [(reached, 0.4)]
        record = records.TrialRecord(
            **{
                "campaign": "made", "contender": contender, "submission": "s", "digest": "0",
                "space": None,
                "tuner": {"name": "halton"}, "ruleset": "external", "workload": workload,
                "study": study, "trial": number + 1, "hyperparameters": {"lr": 0.1},
                "seeds": records.Seeds(campaign=1, trial=1, tuner=1, fixed_batch=None),
                "budget": records.BudgetRecord(
                    currency=self.currency, study=self.budget * self.scale,
                    trial=self.budget * self.scale, eval_period=10 * self.scale,
                ),
                "batch_size": 1, "reference_batch_size": 1, "step_hint": 10,
                "target": Target(metric="validation/loss", value=0.5, better="lower"),
                "test_target": None, "status": "target" if hit else "trial_budget",
                "ledger": records.Ledger(cost=self._cost(cost), declared=False),
                "segments": (self._segment(before, cost, len(rows or losses)),),
                "reached": hit, "best": 0.4 if hit else 0.9,
                "environment": ENVIRONMENT, "started_at": "2026-01-01T00:00:00+00:00",
                **changes,
            }
        )  # fmt: skip
        folder = records.trial_directory(self.out / "logs", contender, study, workload, number + 1)
        records.write_json(folder / records.RUN_FILE, record)
        rows = rows or [
            {
                "global_step": round(at), "gradient_evaluations": at * self.scale,
                "accumulated_submission_time": at, "score": at, "train/loss": loss,
                "validation/loss": loss, "episode": 0, "phase": "training",
            }
            for at, loss in losses
        ]  # fmt: skip
        records.write_evaluations(folder / records.EVAL_FILE, rows)

    def learner(self, contender, workload, study, *episodes, **changes):
        """Add a self-tuning run with evaluations ``(phase, steps, {step: loss})`` per episode."""
        rows, start = [], 0
        for number, (phase, steps, losses) in enumerate(episodes):
            rows += curve_rows(losses, start=start, episode=number, phase=phase)
            start += steps
        changes = {"ruleset": "self-tuning", "tuner": None, "hyperparameters": None} | changes
        self.trial(contender, workload, study, float(start), rows=rows, **changes)

    def baseline(self, contender, workload, study, losses, columns=(), **changes):
        """Add a trial with evaluations ``{step: loss}``; ``columns`` are the same in each."""
        rows = [row | dict(columns) for row in curve_rows(losses)]
        self.trial(contender, workload, study, float(max(losses)), rows=rows, **changes)

    def study(self, contender, workload, study, ended="budget"):
        """Finish a study."""
        trials, spent = self.spent[contender, workload, study]
        record = records.StudyRecord(
            campaign="made", contender=contender, workload=workload, study=study, ended=ended,
            trials=trials, spent=self._cost(spent), tuner_seconds=0.0, largest_step=1.0,
            budget=records.BudgetRecord(
                currency=self.currency, study=self.budget * self.scale,
                trial=self.budget * self.scale, eval_period=10 * self.scale,
            ),
        )  # fmt: skip
        folder = records.study_directory(self.out / "logs", contender, study, workload)
        records.write_json(folder / records.STUDY_FILE, record)

    def whole_study(self, contender, workload, study, hits):
        """Add trials of 250 each that reach at ``hits`` (None: not), and finish the study."""
        for hit in hits:
            self.trial(contender, workload, study, 250.0, hit)
        self.study(contender, workload, study)

    def _segment(self, before, cost, evaluations):
        return records.Segment(
            spent_before=self._cost(before), start=Cost(), end=self._cost(cost),
            evaluations=evaluations,
        )  # fmt: skip

    def _cost(self, amount):
        return Cost(
            steps=round(amount), gradient_evaluations=amount * self.scale, seconds=amount / 100
        )


def curve_rows(losses, start=0, episode=0, phase="training"):
    """Evaluation rows with every loss the same, at steps since the episode's start."""
    return [
        {
            "global_step": start + step, "gradient_evaluations": float(start + step),
            "accumulated_submission_time": 0.01 * (start + step), "train/loss": loss,
            "validation/loss": loss, "test/loss": loss, "validation/accuracy": 1 - loss,
            "episode": episode, "phase": phase, "episode_start_steps": start,
        }
        for step, loss in losses.items()
    ]  # fmt: skip


def two_learners(b, workload="w", last="deployed", **changes):
    """Two studies of m with two and with three episodes of learning, then ``last``."""
    one, four = {1: 1.0, 2: 1.0, 3: 1.0}, {1: 4.0, 2: 4.0, 3: 4.0}
    small = {1: 0.25, 2: 0.25, 3: 0.25}
    after = (last, 6, {3: 0.125, 6: 0.0625})
    b.learner("m", workload, 1, ("learning", 3, one), ("learning", 3, small), after, **changes)
    b.learner(
        "m", workload, 2, ("learning", 3, four), ("learning", 3, one), ("learning", 3, small),
        after, **changes,
    )  # fmt: skip


@pytest.fixture(scope="session")
def build():
    """The builder."""
    return CampaignBuilder


def write_hand_made(out, scale=1.0):
    """Write two contenders, two workloads, three studies; test_scores.py has the table."""
    b = CampaignBuilder(out, ["a+halton", "b+halton"], ["easy", "hard"], 3, scale=scale)
    b.whole_study("a+halton", "easy", 1, [None, 100.0, 50.0, None])
    b.whole_study("a+halton", "easy", 2, [200.0, None, None, None])
    b.whole_study("a+halton", "easy", 3, [None, None, None, 10.0])
    b.whole_study("b+halton", "easy", 1, [80.0, None, None, None])
    b.whole_study("b+halton", "easy", 2, [None, 70.0, None, None])
    b.whole_study("b+halton", "easy", 3, [90.0, None, None, None])
    for study in (1, 2):
        b.whole_study("a+halton", "hard", study, [None, None, 250.0, None])
        b.whole_study("b+halton", "hard", study, [None, None, None, None])
    b.whole_study("b+halton", "hard", 3, [240.0, None, None, None])
    return out


@pytest.fixture
def hand_made(tmp_path):
    """Writes the campaign of :func:`write_hand_made`, by default into the test's own folder."""

    def make(out=tmp_path, scale=1.0):
        return write_hand_made(out, scale)

    return make


COMMAND = "make it --storage postgresql://me:TopSecret1@host/base"


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """The folder of a report on the hand-made campaign, for tests that only read it."""
    from analysis.logs.reader import read_logs
    from analysis.report.report import write_report

    folder = tmp_path_factory.mktemp("reported")
    logs = read_logs(write_hand_made(folder / "runs"))
    write_report(logs, folder / "report", command=COMMAND)
    return folder / "report"


WORKLOADS = ["breast_cancer_logistic", "digits_mlp"]
# Where each study's trials of 250 hit: by contender, on the first workload and on the second.
HITS = {
    "a+halton": [[[None, 100.0, 50.0, None], [200.0], [None, 10.0]], [[250.0], [None], [30.0]]],
    "b+halton": [[[80.0], [None, 70.0], [90.0]], [[None], [None], [240.0]]],
}


def target(workload):
    return targets_of(workload).validation


def build_runs(build, out, hits=HITS, scale=1.0, skip=(), campaign_seed=1, **changes):
    """Write a campaign of whole studies on frozen targets, complete enough to be valid."""
    b = build(out, list(hits), WORKLOADS, 3, scale=scale)
    noise = itertools.count(1)  # no two trials take equally long, to a nanosecond
    for contender, both in hits.items():
        for workload, studies in zip(WORKLOADS, both, strict=True):
            for study, trials in enumerate(studies, start=1):
                if (contender, workload, study) in skip:
                    continue
                key = campaign_seed, workload, study
                for trial, hit in enumerate([*trials, None, None, None][:4], start=1):
                    seeds = records.Seeds(
                        campaign=campaign_seed, trial=derive_seed(*key, "trial", trial),
                        tuner=derive_seed(*key, "tuner"), fixed_batch=None,
                    )  # fmt: skip
                    given = {"target": target(workload), "seeds": seeds, "best": 0.01} | changes
                    loss, steps = (0.9, 250) if hit is None else (0.01, round(hit))
                    seconds = steps / 100 + 1e-9 * next(noise)
                    row = {
                        "accumulated_eval_time": 0.0, "accumulated_logging_time": 0.0,
                        "accumulated_submission_time": seconds, "score": seconds,
                        "global_step": steps, "gradient_evaluations": steps * scale,
                        "preemption_count": 0, "total_duration": seconds,
                        "train/loss": loss, "validation/loss": loss, "test/loss": loss,
                        "episode": 0, "phase": "training",
                    }  # fmt: skip
                    b.trial(contender, workload, study, 250.0, hit, rows=[row], **given)
                b.study(contender, workload, study)
    for run_file in out.rglob("run.json"):
        seed = json.loads(run_file.read_text())["seeds"]["trial"]
        flags = {"tuning_ruleset": "external", "rng_seed": seed}
        records.write_json(run_file.with_name("flags_0.json"), flags)
        meta = {"cpu_model_name": "abacus", "cpu_count": 1, "python_version": "3.11.10",
                "os_platform": "Linux", "rng_seed": seed}  # fmt: skip
        records.write_json(run_file.with_name("meta_data_0.json"), meta)
        hyperparameters = {"lr": 0.1}
        records.write_json(run_file.with_name("hparams.json"), hyperparameters)
    return out


@pytest.fixture(scope="session")
def built_once(build, tmp_path_factory):
    """The campaign and the leaderboard that it makes, not to be changed."""
    from analysis.leaderboard.submitting import submit

    runs = build_runs(build, tmp_path_factory.mktemp("built") / "runs")
    submit(runs, runs.parent / "board")
    return runs.parent


@pytest.fixture
def make_runs(build, built_once, tmp_path):
    """A campaign of one's own."""

    def make(name="runs", **changes):
        if changes:
            return build_runs(build, tmp_path / name, **changes)
        return shutil.copytree(built_once / "runs", tmp_path / name)

    return make


@pytest.fixture
def board(tmp_path):
    """Where a leaderboard may be."""
    return tmp_path / "board"


@pytest.fixture
def filled(built_once, board):
    """A leaderboard with the campaign's records."""
    return shutil.copytree(built_once / "board", board)


class OfficialBuilder:
    """Writes logs as AlgoPerf's runner does."""

    METRICS = ("train/loss", "validation/loss", "test/loss")

    def __init__(self, root):
        self.root, self.seed = root, 0

    def trial(self, submission, study, workload, trial, rows, framework="jax", ruleset="external"):
        """Add a trial with evaluations ``(loss, seconds)``; ``None``: it crashed before any."""
        folder = self.root / submission / f"study_{study}" / f"{workload}_{framework}"
        folder /= f"trial_{trial}"
        self.seed += 1
        if rows is not None:
            lines = [
                {
                    "accumulated_eval_time": 2.0 * n, "accumulated_logging_time": 0.1 * n,
                    "accumulated_submission_time": seconds, "global_step": 1 + 10 * n,
                    "preemption_count": 0, "score": seconds, "total_duration": seconds + 2.1 * n,
                    **dict.fromkeys(self.METRICS, loss), "validation/num_examples": 7,
                }
                for n, (loss, seconds) in enumerate(rows)
            ]  # fmt: skip
            records.write_evaluations(folder / records.EVAL_FILE, lines)
        if ruleset == "external":
            records.write_json(folder / "hparams.json", {"learning_rate": 0.1})
        flags = {"framework": framework, "workload": workload, "tuning_ruleset": ruleset}
        records.write_json(folder / "flags_0.json", flags | {"rng_seed": self.seed})
        meta = {
            "workload.max_allowed_runtime_sec": 100, "workload.target_metric_name": "loss",
            "workload.validation_target_value": 0.5, "cpu_model_name": "abacus", "cpu_count": 1,
            "gpu_model_name": "beads", "gpu_count": 8, "python_version": "3.11.10",
            "os_platform": "Linux", "gpu_driver": "1", "rng_seed": self.seed,
        }  # fmt: skip
        records.write_json(folder / "meta_data_0.json", meta)
        return folder

    def good(self):
        """Write two submissions on two workloads, two studies of two trials each."""
        for submission in ("fast", "slow"):
            for workload in ("easy", "hard"):
                for study in (1, 2):
                    for trial in (1, 2):
                        hit = 10.0 * trial * (2 if submission == "slow" else 1)
                        hit += self.seed / 1000  # no two trials take equally long
                        self.trial(submission, study, workload, trial, [(0.9, 1.0), (0.4, hit)])
        return self.root

    def targets(self, path, **changes):
        """Write a ``workload_targets.json`` for them."""
        target = {"target_metric_name": "loss", "validation_target_value": 0.5, "step_hint": 9}
        document = {
            "benchmark_version": "0.6", "base_workloads": ["easy", "hard"],
            "held_out_workloads": [], "workloads": {"easy": target, "hard": target},
        }  # fmt: skip
        records.write_json(path, document | changes)
        return path


@pytest.fixture
def official():
    """The builder of AlgoPerf's logs."""
    return OfficialBuilder


@pytest.fixture
def good(tmp_path, official):
    """AlgoPerf logs that break no rule: two submissions, workloads, studies and trials."""
    return official(tmp_path / "logs").good()


def pack(folder, path, mode="w:xz"):
    """Put a folder into a tar, under its own name."""
    with tarfile.open(path, mode, preset=0) if mode == "w:xz" else tarfile.open(path, mode) as tar:
        tar.add(folder, folder.name)
    return path


@pytest.fixture(name="pack")
def pack_fixture():
    """The packer."""
    return pack
