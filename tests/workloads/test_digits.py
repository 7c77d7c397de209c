"""The conv net and the Transformer on scikit-learn's digits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.digits_conv import ConvNet
from metaopt.workloads.digits_transformer import LEVELS, PIXELS
from metaopt.workloads.models.convolution import convolve_by_matrix
from metaopt.workloads.registry import get_workload

CONV, TRANSFORMER = get_workload("digits_conv"), get_workload("digits_transformer")
KEY = jax.random.PRNGKey(0)


@pytest.fixture(scope="module")
def trained_a_little():
    """Parameters of the Transformer in which nothing is zero or equal any more."""
    params, _ = TRANSFORMER.init_model_fn(KEY)
    random = np.random.default_rng(0)
    noise = lambda p: jnp.asarray(0.3 * random.standard_normal(p.shape), p.dtype)  # noqa: E731
    return jax.tree.map(lambda p: p + noise(p), params)


@jax.jit
def logits_of(params, levels):
    batch = {"inputs": levels, "targets": levels}
    return TRANSFORMER.model_fn(params, batch, None, ForwardPassMode.EVAL, KEY, False)[0]


@pytest.mark.parametrize(
    "stride, padding, window",
    [
        (1, "SAME", (3, 3)), (2, "SAME", (2, 3)), (1, "VALID", (2, 3)), (2, "VALID", (3, 3)),
        (1, [(1, 1), (2, 0)], (3, 3)), (2, [(1, 1), (2, 0)], (2, 3)),
    ],
    ids=str,
)  # fmt: skip
def test_convolution_by_matrix_is_jaxs_convolution_with_its_gradients(stride, padding, window):
    keys = jax.random.split(KEY, 3)
    images = jax.random.normal(keys[0], (2, 8, 7, 3))
    kernel = jax.random.normal(keys[1], (*window, 3, 4))

    def jaxs(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @jax.jit
    def both(images, kernel):
        """Values and gradients of both, from one compilation."""
        ours, pull_back = jax.vjp(
            lambda *x: convolve_by_matrix(*x, (stride, stride), padding), images, kernel
        )
        theirs, expected_pull_back = jax.vjp(jaxs, images, kernel)
        cotangent = jax.random.normal(keys[2], theirs.shape)
        return (ours, *pull_back(cotangent)), (theirs, *expected_pull_back(cotangent))

    for found, expected in zip(*both(images, kernel), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_conv_net_is_the_one_with_flaxs_convolutions():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            hidden = inputs.reshape(-1, 8, 8, 1)
            for index, width in enumerate((32, 64)):
                conv = nn.Conv(width, (3, 3), strides=2, padding=1, name=f"conv_{index}")
                hidden = nn.relu(conv(hidden))
            return nn.Dense(10, name="output")(hidden.reshape(len(inputs), -1))

    inputs = CONV.arrays["validation"]["inputs"][:5]
    params, _ = CONV.init_model_fn(KEY)

    expected, found = jax.jit(
        lambda params: [model.apply({"params": params}, inputs) for model in (Plain(), CONV.model)]
    )(params)

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_moved_by_two_pixels_moves_the_first_layer_by_one():
    layer = nn.Conv(4, (3, 3), strides=2, padding=1, conv_general_dilated=convolve_by_matrix)
    image = jnp.zeros((1, 16, 16, 1)).at[:, 4:10, 4:10].set(jax.random.normal(KEY, (1, 6, 6, 1)))
    variables, apply = layer.init(KEY, image), jax.jit(layer.apply)

    moved = apply(variables, jnp.roll(image, (2, 2), (1, 2)))

    np.testing.assert_array_equal(moved, jnp.roll(apply(variables, image), (1, 1), (1, 2)))


def test_parameters_by_hand():
    conv = 3 * 3 * 1 * 32 + 32 + 3 * 3 * 32 * 64 + 64 + 2 * 2 * 64 * 10 + 10
    d, inner = 32, 64
    layer = 4 * d * d + (d * inner + inner) + (inner * d + d) + 2 * 2 * d
    transformer = (LEVELS + 1) * d + PIXELS * d + 2 * layer + 2 * d + d * LEVELS + LEVELS

    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(workload.init_model_fn, KEY)[0]))
        for workload in (CONV, TRANSFORMER)
    ]

    assert sizes == [conv, transformer] == [21_386, 20_081]


@pytest.mark.parametrize("pixel", [0, 1, 31, 62])
def test_a_pixel_changes_the_logits_of_later_pixels_only(trained_a_little, pixel):
    levels = TRANSFORMER.arrays["validation"]["inputs"][:2].astype(jnp.int32)
    changed = levels.at[:, pixel].set((levels[:, pixel] + 5) % LEVELS)

    one, other = logits_of(trained_a_little, levels), logits_of(trained_a_little, changed)

    np.testing.assert_array_equal(one[:, : pixel + 1], other[:, : pixel + 1])
    differs = jnp.abs(one - other).max(axis=(0, 2)) > 0
    assert differs[pixel + 1 :].all()


def test_equal_logits_cost_the_logarithm_of_the_number_of_levels():
    levels = TRANSFORMER.arrays["validation"]["targets"][:3].astype(jnp.int32)

    loss = TRANSFORMER.loss_fn(levels, jnp.zeros((3, PIXELS, LEVELS)))

    assert loss["n_valid_examples"] == 3 * PIXELS
    assert loss["summed"] / loss["n_valid_examples"] == pytest.approx(np.log(17), rel=1e-6)


def test_the_probabilities_of_whole_images_sum_to_one(trained_a_little):
    # Of the first two pixels, whatever follows: the model is a distribution over images.
    pairs = jnp.array([[a, b] for a in range(LEVELS) for b in range(LEVELS)], jnp.int32)
    levels = jnp.zeros((len(pairs), PIXELS), jnp.int32).at[:, :2].set(pairs)

    logs = jax.nn.log_softmax(logits_of(trained_a_little, levels)[:, :2])

    chosen = jnp.take_along_axis(logs, pairs[..., None], axis=2)[..., 0].sum(1)
    assert jnp.exp(chosen).sum() == pytest.approx(1.0, rel=1e-5)


def test_a_padded_image_weighs_nothing_in_any_of_its_pixels():
    *_, last = TRANSFORMER._build_input_queue(None, "validation", global_batch_size=50)

    weights = np.asarray(last["weights"])

    assert weights.shape == (50, PIXELS)
    assert weights[:26].all()  # of 126
    assert not weights[26:].any()


def test_the_transformer_sees_the_images_that_scikit_learn_has():
    images = {tuple(row) for row in load_digits().data.astype(int)}
    rows = [
        tuple(row)
        for part in TRANSFORMER.arrays.values()
        for row in np.asarray(part["inputs"], int)
    ]
    assert len(rows) == len(set(rows)) == 1797
    assert set(rows) == images


def test_the_conv_net_sees_every_image_of_one_split_with_noise():
    images = load_digits().data / 16.0
    nearest = {}
    for split, part in CONV.arrays.items():
        pixels = np.asarray(part["inputs"]).reshape(-1, 64)
        # Undo the standardisation, by the first two moments of the noisy training images.
        scale = np.sqrt(images.var() + 0.2**2)
        rows = pixels * scale + images.mean()
        products = rows @ images.T
        distances = (rows**2).sum(1)[:, None] - 2 * products + (images**2).sum(1)
        nearest[split] = distances.argmin(1)
        noise = rows - images[nearest[split]]
        assert noise.std() == pytest.approx(0.2, rel=0.03)
    held_out = [len(set(nearest[split])) for split in ("validation", "test")]
    assert held_out == pytest.approx([250, 250], rel=0.02)  # few are nearer to another image
    copies = nearest["train"].reshape(8, 1297)
    assert (copies == copies[0]).mean() > 0.95


def test_a_conv_net_of_other_widths_keeps_its_form():
    net = ConvNet(widths=(2, 3, 4), outputs=5)
    params = jax.eval_shape(net.init, KEY, jnp.zeros((1, 8, 8, 1)))["params"]

    assert params["output"]["kernel"].shape == (4, 5)  # of one pixel
