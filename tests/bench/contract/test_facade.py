"""What a submission sees of a workload, and what it is charged for what it draws."""

import jax
import jax.numpy as jnp
import pytest

from metaopt.bench.contract.facade import ALGOPERF_INTERFACE, CountedQueue, Facade
from metaopt.bench.contract.return_values import ContractError
from metaopt.bench.trial.audits.counting import counting_facade
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))


def test_a_facade_has_the_public_attributes_of_algoperfs_workloads_and_two_more():
    workload = get_workload("breast_cancer_logistic")

    facade = Facade(workload, 32)

    for name in ALGOPERF_INTERFACE:
        assert getattr(facade, name) == getattr(workload, name) or callable(getattr(facade, name))
    assert facade.reference_batch_size == workload.reference_batch_size
    assert facade.batch_shapes()["inputs"].shape[0] == 32
    assert facade.batch_shapes(8)["inputs"].shape[0] == 8


@pytest.mark.parametrize(
    "name", ["arrays", "network", "model", "load", "_build_input_queue", "name", "base", "targets"]
)
def test_a_facade_hides_everything_else(name):
    facade = Facade(get_workload("breast_cancer_logistic"), 32)

    with pytest.raises(AttributeError, match=f"`workload.{name}` is not in AlgoPerf's interface"):
        getattr(facade, name)


def test_a_facade_can_neither_be_changed_nor_evaluate():
    facade = Facade(get_workload("breast_cancer_logistic"), 32)

    with pytest.raises(AttributeError):
        facade.loss_fn = None
    with pytest.raises(ContractError, match="eval_results"):
        facade.eval_model(32, None, None)


def test_facades_of_one_workload_share_what_is_compiled_and_a_counting_one_does_not():
    traced = []

    @jax.jit
    def plain(x):
        return x

    step = jax.jit(lambda workload, x: traced.append(workload) or x, static_argnums=0)
    other = Quadratic(curvatures=(1.0, 5.0), step_hint=7)
    facades = [Facade(WORKLOAD, 1), Facade(WORKLOAD, 2), Facade(other, 1)]
    facades += [counting_facade(WORKLOAD, 1, WORKLOAD.step_hint)] * 2
    facades += [Facade(WORKLOAD, 1, 9), Facade(WORKLOAD, 1, WORKLOAD.step_hint)]

    for facade in facades:
        step(facade, plain(jnp.zeros(())))

    assert traced == [facades[0], facades[2], facades[3], facades[5]]
    assert facades[0] == facades[6]


def test_a_queue_gives_nothing_but_batches():
    seen = []
    queue = CountedQueue(iter([1, 2]), seen.append)

    assert [*queue] == seen == [1, 2]
    assert not hasattr(queue, "seek") and not hasattr(queue, "position")


@pytest.mark.parametrize("drawn, declared, charged", [(3, None, 30), (0, None, 10), (2, 5.0, 50)])
@pytest.mark.parametrize("drawn_first", [False, True], ids=["in steps", "all at first"])
def test_the_larger_of_the_running_totals_is_charged(
    tmp_path, make_plan, make_gradient_descent, drawn, declared, charged, drawn_first
):
    steps = 10
    report = declared and (
        lambda state: {
            "gradient_evaluations": declared * count["steps"], "episode": 0, "phase": "training"
        }
    )  # fmt: skip
    count = {"steps": 0}
    submission = make_gradient_descent(
        before_step=lambda _: count.update(steps=count["steps"] + 1), report=report
    )

    def select(workload, queue, state, params, model_state, hyperparameters, step, rng):
        times = drawn * (steps * (step == 0) if drawn_first else 1)
        return [next(queue) for _ in range(times)]

    submission.module.data_selection = select
    plan = make_plan(submission, WORKLOAD, currency="steps", allowance=float(steps))

    ledger = run_trial(plan, tmp_path).ledger

    assert ledger.cost.gradient_evaluations == charged
    assert ledger.examples == drawn * steps


def test_set_up_is_on_the_ledger(tmp_path, make_plan, make_gradient_descent, clock):
    submission = make_gradient_descent(
        report=lambda state: {
            "gradient_evaluations": 7.0, "episode": 0, "phase": "training"
        }
    )  # fmt: skip

    def init(*_):
        clock.advance(3.0)
        return {"nothing": 0}, None

    submission.module.init_optimizer_state = init
    submission.module.data_selection = lambda *_: {}
    plan = make_plan(submission, WORKLOAD, currency="steps", allowance=5.0)

    cost = run_trial(plan, tmp_path, clock=clock).ledger.cost

    assert (cost.seconds, cost.gradient_evaluations, cost.steps) == (3.0, 7.0, 5)


def test_batches_drawn_before_an_evaluation_count_as_one_step(
    tmp_path, make_plan, make_gradient_descent
):
    queues = []
    submission = make_gradient_descent()

    def select(workload, queue, *_):
        queues.append(queue)
        return next(queue)

    def prepare(*, current_param_container, model_state, optimizer_state, **_):
        for _ in range(5):
            next(queues[0])
        return optimizer_state, current_param_container, model_state

    submission.module.data_selection, submission.module.prepare_for_eval = select, prepare

    record = run_trial(make_plan(submission, WORKLOAD, allowance=20.0), tmp_path)

    assert record.ledger.largest_step == 5.0
