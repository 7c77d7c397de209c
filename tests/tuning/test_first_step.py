"""The first step of a package: what it must change, and what it must keep."""

import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from tuning.packaging import first_step


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([1.0, 2.0], "3 steps changed no parameter"),
        ([1.0, np.nan], "after a step the parameters are not finite"),
        ([1.0, 2.0, 3.0], "a step changed the parameters' shapes"),
    ],
)
def test_a_step_keeps_shapes_changes_something_and_stays_finite(after, message):
    before = {"x": np.array([1.0, 2.0])}

    first_step.check_step(before, {"x": np.array([1.0, 2.5])})
    with pytest.raises(ValueError, match=message):
        first_step.check_step(before, {"x": np.array(after)})


def test_a_step_in_evaluation_mode_or_a_rate_of_zero_forever_is_noticed():
    rates = itertools.chain([0.0, 0.0], itertools.repeat(0.1))

    def update_params(*, workload, current_param_container, batch, optimizer_state, **_):
        loss = lambda p: workload.loss_fn(  # noqa: E731
            batch["targets"], workload.model_fn(p, batch, None, mode, None, True)[0]
        )["summed"]
        rate, grads = next(rates), jax.grad(loss)(current_param_container)
        params = jax.tree.map(lambda p, g: p - rate * g, current_param_container, grads)
        return optimizer_state, params, None

    module = SimpleNamespace(
        get_batch_size=lambda name: 6,
        init_optimizer_state=lambda *_: ({}, None),
        data_selection=lambda workload, queue, *_: next(queue),
        update_params=update_params,
    )

    mode = ForwardPassMode.TRAIN
    first_step.check_step(*first_step.take_step(module, None))  # the third step of a warm-up
    mode = ForwardPassMode.EVAL
    with pytest.raises(ValueError, match="a step is taken in training mode, not in"):
        first_step.take_step(module, None)
