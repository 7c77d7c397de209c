"""Strict JAX where the arithmetic is ours, and the fixtures that several folders share."""

import ctypes
import dataclasses
import gc
import os
import resource
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

# Workers and the processes that tests start inherit these. Tests run most programs once, so they
# are compiled fast rather than well, and every process reads those that another has compiled.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import pytest

from metaopt.bench.contract.loading import Submission, find_submissions
from metaopt.bench.contract.requirements import read_requirements
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Seeds
from metaopt.bench.trial.plan import TrialPlan, plan_trial
from metaopt.workloads.registry import list_workloads

ROOT = Path(__file__).resolve().parents[1]
LIBC = ctypes.CDLL(None)
PEAKS = pytest.StashKey[dict[str, int]]()


# An example may take long on a busy machine.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config):
    config.stash[PEAKS] = {}


def pytest_sessionfinish(session: pytest.Session):
    """Note the peak memory of this process, in MiB, where the controller finds it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        session.config.stash[PEAKS]["this process"] = peak
    else:
        output["peak"] = peak


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    if peak := getattr(node, "workeroutput", {}).get("peak"):
        node.config.stash[PEAKS][node.gateway.id] = peak


def pytest_terminal_summary(terminalreporter, config: pytest.Config):
    peaks = ", ".join(f"{name} {peak:,} MiB" for name, peak in config.stash[PEAKS].items())
    terminalreporter.write_line(f"Peak memory: {peaks}")


@pytest.fixture(scope="module", autouse=True)
def free_memory():
    """Free what a module compiled and loaded: over the whole suite it would be gigabytes."""
    yield
    free_workloads()


def free_workloads():
    """Free the workloads' arrays and all compiled programs."""
    jax.clear_caches()
    for workload in list_workloads().values():
        for name in vars(workload).keys() - {field.name for field in dataclasses.fields(workload)}:
            del vars(workload)[name]  # a cached property, such as the arrays
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):  # glibc keeps what was freed in small pieces
        LIBC.malloc_trim(0)


def pytest_collection_modifyitems(items):
    """Skip the tests of submissions that need a newer version than the installed one."""
    unmet = {}
    for name, folder in find_submissions(ROOT / "submissions").items():
        for line in read_requirements(folder):
            if metadata.version(line.name) not in line.requirement.specifier:
                unmet[name] = f"{name} needs {line.requirement}"
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        named = [value for value in parameters if isinstance(value, str)]
        named += [name for mark in item.iter_markers("uses_submission") for name in mark.args]
        for reason in {unmet[name] for name in named if name in unmet}:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def strict_jax(request: pytest.FixtureRequest):
    """No implicit promotion in our own arithmetic; optax's Adam needs some of dtypes."""
    folder = request.path.relative_to(ROOT).parts[1]
    dtypes = "strict" if folder == "workloads" else "standard"
    ranks = "raise" if folder in ("workloads", "metaopt") else "allow"
    with jax.numpy_dtype_promotion(dtypes), jax.numpy_rank_promotion(ranks):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def data_dir() -> Path:
    """``METAOPT_DATA_DIR`` with MNIST in it; skips without."""
    folder = os.environ.get("METAOPT_DATA_DIR")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("METAOPT_DATA_DIR with mnist/ is not set")
    return Path(folder)


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> FakeClock:
    """A clock that tests move."""
    return FakeClock()


@dataclasses.dataclass(frozen=True)
class FakeSubmission:
    """Stands in for a loaded folder: functions of a namespace as a submission."""

    module: SimpleNamespace | ModuleType
    name: str = "fake"
    ruleset: str = "self-tuning"
    digest: str = "0"
    wants_train_state: bool = False
    developed_on: tuple[str, ...] = ()
    folder: Path = Path(__file__).parent


def gradient_descent(rate: float = 0.1, before_step=None, report=None) -> FakeSubmission:
    """Return plain gradient descent; ``before_step(step)`` may do harm, ``report`` may declare."""

    def update_params(*, workload, current_param_container, model_state, batch, optimizer_state,
                      global_step, rng, **_):  # fmt: skip
        if before_step is not None:
            before_step(global_step)
        loss = lambda x: workload.loss_fn(None, x)["summed"]  # noqa: E731
        params = current_param_container - rate * jax.grad(loss)(current_param_container)
        return optimizer_state, params, model_state

    module = SimpleNamespace(
        get_batch_size=lambda name: 1,
        init_optimizer_state=lambda *_: ({"nothing": 0}, None),
        data_selection=lambda workload, queue, *_: next(queue),
        update_params=update_params,
    )
    if report is not None:
        module.report = report
    return FakeSubmission(module)


@pytest.fixture
def make_gradient_descent():
    """The factory of gradient-descent submissions."""
    return gradient_descent


class Killed(BaseException):
    """Ends a run the way a signal does: nothing in the runner catches it."""


@pytest.fixture
def killed() -> type[Killed]:
    """The exception that stands for a signal."""
    return Killed


SEGMENT = ("spent_before", "tuner_seconds", "pause_at", "segments")


@pytest.fixture
def make_plan():
    """A factory of trial plans on a workload, with sensible values for what a test leaves out."""

    def make(submission: Submission | FakeSubmission, workload, **changes) -> TrialPlan:
        amounts = {"study": 100.0, "trial": 100.0, "eval_period": 10.0}
        names = {"study": "study_budget", "trial": "trial_budget", "eval_period": "eval_period"}
        budget = BudgetRecord(
            currency=changes.pop("currency", "gradient_evaluations"),
            **{name: changes.pop(names[name], amount) for name, amount in amounts.items()},
        )
        settings = {
            "campaign": "test", "contender": "test", "study": 1, "trial": 1, "budget": budget,
            "seeds": Seeds(campaign=1, trial=7), "hyperparameters": None, "allowance": 100.0,
            "target": Target("validation/loss", -1.0, "lower"), "test_target": None,
        }  # fmt: skip
        segment = {name: changes.pop(name) for name in SEGMENT if name in changes}
        plan = plan_trial(submission, workload, **{**settings, **changes})
        return dataclasses.replace(plan, **segment)

    return make
