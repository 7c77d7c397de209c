"""CIFAR-10's workload: VGG-16 with its running averages, on the small data."""

import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.kit import training_loss
from metaopt.bench.contract.spec import ForwardPassMode, ParameterType
from metaopt.workloads.cifar10 import CIFAR10_VGG16, load_cifar10_small, standardise
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL


@pytest.fixture
def small(request):
    """The small workload; skips without its data."""
    folder = os.environ.get("METAOPT_DATA_DIR")
    if not folder or not os.path.isdir(os.path.join(folder, "cifar10")):
        pytest.skip("METAOPT_DATA_DIR with cifar10/ is not set")
    return get_workload("cifar10_vgg16_small")


def test_the_small_data_is_the_first_of_each_class(small):
    arrays = load_cifar10_small()

    assert [len(part["targets"]) for part in vars(arrays).values()] == [9_000, 1_000, 2_000]
    assert np.bincount(arrays.test["targets"]).tolist() == [200] * 10
    assert arrays.train["targets"][:5].tolist() == [6, 9, 9, 4, 1]


def test_vgg16_has_the_parameters_that_a_hand_count_gives():
    variables = jax.eval_shape(lambda: CIFAR10_VGG16.model.init(KEY, jnp.zeros((1, 32, 32, 3))))

    channels = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(channels))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == convolutions + 512 * 10 + 10 == 14_724_042
    assert f"({count:,} parameters)" in CIFAR10_VGG16.summary


@functools.cache
def forward(workload):
    """``model_fn``, compiled once for each mode and each way with the statistics."""
    return jax.jit(workload.model_fn, static_argnums=(3, 5, 7))


@pytest.fixture
def start(small):
    """Parameters, model state with averages off their start, and 16 images."""
    params, state = small.init_model_fn(KEY)
    state = jax.tree.map(lambda average: average + 0.1, state)
    return params, state, standardise({key: a[:16] for key, a in small.arrays["train"].items()})


def test_running_averages_move_in_training_if_told_to_and_never_in_evaluation(small, start):
    params, state, batch = start

    logits, moved = forward(small)(params, batch, state, TRAIN, KEY, True)
    same_logits, kept = forward(small)(params, batch, state, TRAIN, KEY, False)
    _, evaluated = forward(small)(params, batch, state, EVAL, KEY, False)

    jax.tree.map(np.testing.assert_array_equal, kept, state)
    jax.tree.map(np.testing.assert_array_equal, evaluated, state)
    np.testing.assert_allclose(logits, same_logits, atol=1e-5)
    images = jax.lax.conv_general_dilated(
        batch["inputs"], params["conv_0"]["kernel"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    for statistic, of in (("mean", np.mean), ("var", np.var)):
        before, after = (s["batch_stats"]["bn_0"][statistic] for s in (state, moved))
        expected = 0.9 * before + 0.1 * of(np.asarray(images), (0, 1, 2))
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="`update_batch_norm` must be False in evaluation mode"):
        small.model_fn(params, batch, state, EVAL, KEY, True)


def test_a_submission_may_choose_the_statistics_as_in_algoperf(small, start):
    params, state, batch = start

    def logits(mode, update, use_running_average_bn):
        arguments = params, batch, state, mode, KEY, update, None, use_running_average_bn
        return forward(small)(*arguments)

    of_averages, of_batch = logits(EVAL, False, None)[0], logits(TRAIN, False, None)[0]
    kept, state_after = logits(TRAIN, True, True)

    assert np.abs(of_averages - of_batch).max() > 0.01
    np.testing.assert_allclose(logits(TRAIN, False, True)[0], of_averages, atol=1e-5)
    np.testing.assert_allclose(logits(EVAL, False, False)[0], of_batch, atol=1e-5)
    np.testing.assert_allclose(kept, of_averages, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state_after, state)


def test_evaluation_uses_the_averages_so_an_example_does_not_depend_on_its_neighbours(small, start):
    params, state, batch = start
    others = {key: jnp.concatenate([array[:3], array[:2:-1]]) for key, array in batch.items()}
    others["inputs"] = others["inputs"].at[3:].multiply(2.0)

    def logits(batch, mode):
        return forward(small)(params, batch, state, mode, KEY, False)[0][:3]

    np.testing.assert_allclose(logits(others, EVAL), logits(batch, EVAL), atol=1e-4)
    assert np.abs(logits(others, TRAIN) - logits(batch, TRAIN)).max() > 0.01


def test_the_fixed_form_evaluates_the_function_that_is_trained(small):
    fixed = get_workload("cifar10_vgg16_small_fixed")
    params, state = fixed.init_model_fn(KEY)

    loss, _ = jax.jit(functools.partial(training_loss, fixed))(params, state, fixed.batch, KEY)

    metrics = fixed.eval_model(0, params, state)
    assert metrics["validation/loss"] == pytest.approx(float(loss), rel=1e-5)
    with pytest.raises(ValueError, match="`model_state` must have the structure"):
        fixed.eval_model(0, params, {})


def test_parameter_types_follow_from_the_kinds_of_layers(small):
    types = small.model_params_types

    assert types["conv_3"]["kernel"] is ParameterType.CONV_WEIGHT
    assert types["bn_3"]["scale"] is ParameterType.BATCH_NORM_SCALE
    assert types["bn_3"]["bias"] is ParameterType.BATCH_NORM_BIAS
    assert types["output"]["kernel"] is ParameterType.WEIGHT
    assert types["output"]["bias"] is ParameterType.BIAS


def test_pixels_are_standardised(small):
    images = standardise(small.arrays["train"])["inputs"]

    np.testing.assert_allclose(images.mean((0, 1, 2)), 0.0, atol=0.05)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1.0, atol=0.05)


@pytest.mark.slow  # compiles a deep network
def test_the_loss_falls_over_twenty_steps(small):
    params, state = small.init_model_fn(KEY)
    queue = small._build_input_queue(np.array([0, 1], np.uint32), "train", global_batch_size=32)

    @jax.jit
    def step(params, state, batch):
        grad = jax.value_and_grad(
            lambda params: training_loss(small, params, state, batch, KEY), has_aux=True
        )
        (loss, state), grads = grad(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads), state, loss

    losses = []
    for _ in range(20):
        params, state, loss = step(params, state, next(queue))
        losses.append(float(loss))

    assert np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])
