"""A tuned submission on a quadratic, on a clock that its steps move; and a Ray cluster."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from metaopt.bench import records
from metaopt.bench.contract.tuner import Observer, Proposal
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.outcomes import Outcome, Reading
from metaopt.workloads.synthetic import Quadratic
from tuning.contenders import Contender
from tuning.study import StudyPlan
from tuning.tuners import TUNERS

WORKLOAD = Quadratic(curvatures=(1.0,))
TRIAL = 27  # budget of a trial: rungs at 1, 3, 9
PERIOD = 5
GRADIENTS = 1.25  # declared cost of a step
STEP_SECONDS = 0.75
RANGES = {
    "rate": {"min": 1e-2, "max": 0.9, "scaling": "log"},
    "decay": {"feasible_points": [0.0, 0.001, 0.01]},
    "kind": {"feasible_points": ["plain", "other"]},
}
POINTS = {**RANGES, "rate": {"feasible_points": [0.9, 0.5, 0.1, 0.05, 0.01]}}
OF_POINTS = ("grid", "stagewise")  # need feasible points


@dataclasses.dataclass(frozen=True)
class FakeTuned:
    """Gradient descent whose rate and decay are tuned; see ``gradient_descent`` for the rest."""

    module: SimpleNamespace
    space: dict
    name: str = "fake"
    ruleset: str = "external"
    digest: str = "0"
    wants_train_state: bool = False
    developed_on: tuple[str, ...] = ()
    folder: Path = Path(__file__).parent
    defaults: dict = dataclasses.field(
        default_factory=lambda: {"rate": 0.1, "decay": 0.0, "kind": "plain"}
    )

    def read_space(self, name=None):
        del name
        return self.space


def tuned_descent(clock, space=None, before_step=None) -> FakeTuned:
    """Make the submission; ``before_step(step)`` may do harm."""

    def update_params(*, current_param_container, model_state, hyperparameters, optimizer_state,
                      global_step, **_):  # fmt: skip
        if before_step is not None:
            before_step(global_step)
        clock.advance(STEP_SECONDS)
        x = current_param_container
        # The gradient of half of x squared is x.
        x = (1 - hyperparameters.decay) * x - hyperparameters.rate * x
        state, function = optimizer_state
        return ({"gradients": state["gradients"] + GRADIENTS}, function), x, model_state

    def report(optimizer_state):
        gradients = optimizer_state[0]["gradients"]
        return {"gradient_evaluations": gradients, "episode": 0, "phase": "training"}

    module = SimpleNamespace(
        get_batch_size=lambda name: 1,
        init_optimizer_state=lambda *_: ({"gradients": 0.0}, None),
        data_selection=lambda workload, queue, *_: next(queue),
        update_params=update_params,
        report=report,
    )
    return FakeTuned(module, space or RANGES)


def fake_study(tuner, clock, *, before_step=None, space=None, **changes) -> StudyPlan:
    """Return a study of the fake submission with a tuner of ours; its budget is 3 trials."""
    space = space or (POINTS if tuner in OF_POINTS else RANGES)
    submission = tuned_descent(clock, space, before_step)
    plan = {
        "campaign": "test",
        "campaign_seed": 1,
        "contender": Contender(f"fake+{tuner}", submission, None, tuner),
        "workload": WORKLOAD,
        "study": 1,
        "limits": records.BudgetRecord(
            currency="steps", study=3 * TRIAL, trial=TRIAL, eval_period=PERIOD
        ),
        "target": Target("validation/loss", -1.0, "lower"),
        "test_target": None,
    }
    return StudyPlan(**{**plan, **changes})


@pytest.fixture(autouse=True)
def unchanged_checkout(monkeypatch):
    """What a command prints does not depend on the state of this checkout."""
    monkeypatch.setattr("tuning.obstacles.changed_files", lambda folder: [])


@pytest.fixture
def make_fake_study():
    """The factory of fake studies."""
    return fake_study


@pytest.fixture
def read_trials():
    """Reads the trials under a folder, in order."""

    def read(folder):
        paths = folder.rglob(records.RUN_FILE)
        return sorted(map(records.read_trial, paths), key=lambda trial: trial.trial)

    return read


def play(tuner, turns, loss):
    """Ask and tell a tuner, as a study does but without training.

    Returns ``(trial, share)`` per turn, in order, and each trial's point. ``loss(trial, point)``
    is what a trial shows at every evaluation; its value is the same.
    """
    asked, points = [], {}
    for _ in range(turns):
        answer = tuner.ask()
        if answer is None:
            break
        proposal = answer if isinstance(answer, Proposal) else Proposal(point=answer)
        trial = proposal.resume or len(points) + 1
        if proposal.resume is None:
            points[trial] = proposal.point
        asked.append((trial, proposal.budget))
        value = loss(trial, points[trial])
        status = "paused" if proposal.budget < 1 else "trial_budget"
        if isinstance(tuner, Observer):
            tuner.observe(Outcome(trial, status, value, (Reading(float(proposal.budget), value),)))
        else:
            tuner.tell(value)
    return asked, points


@pytest.fixture
def play_tuner():
    """The player of tuners."""
    return play


@pytest.fixture(params=sorted(TUNERS))
def any_tuner(request):
    """Every tuner by name; skips one whose library is missing."""
    missing = TUNERS[request.param].missing(request.param)
    if missing:
        pytest.skip(f"{request.param} {missing}")
    return request.param


@pytest.fixture
def cluster():
    """A Ray cluster whose machines are added by the test; the first one has no cores."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8}
    )
    yield cluster
    cluster.shutdown()
