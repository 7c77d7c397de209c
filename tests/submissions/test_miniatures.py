"""AdamW in the runner trains on every miniature and classic, whatever its batches look like."""

import jax
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.measure.targets import Target
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

STEPS = 40.0
SLOW = pytest.mark.slow  # compilation takes most of the time
NAMES = [
    "mini_vit", "poisson_pinn",
    *(pytest.param(name, marks=SLOW)
      for name in ("digits_autoencoder", "mini_criteo", "mini_fastmri", "mini_resnet")),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_adamw_lowers_the_training_loss(name, make_plan, tmp_path):
    workload = get_workload(name)
    adamw = load_submission("adamw", SUBMISSIONS)
    point = {**adamw.defaults, "learning_rate": 0.01}
    plan = make_plan(
        adamw, workload, hyperparameters=point, study_budget=STEPS,
        trial_budget=STEPS, allowance=STEPS, eval_period=STEPS,
        target=Target(
            f"validation/{workload.target_metric}",
            {"lower": -1.0, "higher": 2.0}[workload.better], workload.better,
        ),
    )  # fmt: skip

    record = run_trial(plan, tmp_path)

    assert record.error is None
    last = records.read_evaluations(tmp_path / records.EVAL_FILE)[-1]
    params, state = workload.init_model_fn(jax.random.PRNGKey(0))
    start = workload.eval_model(workload.eval_batch_size, params, state)
    assert last["global_step"] == STEPS
    assert last["train/loss"] < 0.95 * start["train/loss"]
