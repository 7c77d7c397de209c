"""The patches of mini_fastmri, its structural similarity, and the zero-filled baseline."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data import photographs
from metaopt.workloads.mini_fastmri import (
    SIDE,
    ConvTranspose,
    depth_to_space,
    halve,
    load_patches,
    mean_similarity,
    normalise_instance,
    space_to_depth,
    structural_similarity,
    zero_filled,
)
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)


@pytest.fixture(scope="module")
def arrays():
    return load_patches()


def similarity_by_windows(one, other, data_range):
    """Return the mean over 7 x 7 windows of SSIM, from its definition, in double precision."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (7, 7)).reshape(-1, 49)
        for image in (one, other)
    ]
    values = []
    for x, y in zip(*windows, strict=True):
        (xx, xy), (_, yy) = np.cov(x, y)
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        values.append(luminance * (2 * xy + c2) / (xx + yy + c2))
    return np.mean(values)


def original(part, name):
    """Return images before they were standardised, of the validation split's first rows."""
    return part[name] * part["std"][:, None, None] + part["mean"][:, None, None]


def test_similarity_follows_its_definition(arrays):
    part = {key: value[:4] for key, value in arrays.validation.items()}
    one, other = original(part, "inputs"), original(part, "targets")
    data_range = np.array([1.0, 0.5, 2.0, 1.0], np.float32)

    found = jax.jit(structural_similarity)(one, other, data_range)

    expected = [
        similarity_by_windows(*images) for images in zip(one, other, data_range, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_similarity_is_one_for_equal_images_and_symmetric():
    one, other = jax.random.uniform(KEY, (2, 3, SIDE, SIDE))
    ones = jnp.ones(3)

    np.testing.assert_allclose(structural_similarity(one, one, ones), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        structural_similarity(one, other, ones), structural_similarity(other, one, ones), atol=1e-6
    )


def test_a_fresh_network_scores_as_the_zero_filled_images(arrays):
    workload = get_workload("mini_fastmri")
    params, state = workload.init_model_fn(KEY)

    metrics = workload.eval_model(workload.eval_batch_size, params, state)

    part = {key: value[:40] for key, value in arrays.validation.items()}
    images = original(part, "inputs"), original(part, "targets"), part["volume_max"]
    expected = [similarity_by_windows(*each) for each in zip(*images, strict=True)]
    labels = tuple(part[key] for key in workload.metric_inputs)
    assert mean_similarity(labels, part["inputs"], None) == pytest.approx(
        np.mean(expected), abs=1e-4
    )
    part = arrays.validation
    labels = tuple(part[key] for key in workload.metric_inputs)
    baseline = mean_similarity(labels, part["inputs"], None)
    assert metrics["validation/ssim"] == pytest.approx(float(baseline), abs=1e-4)
    l1 = np.abs(part["inputs"] - part["targets"]).mean()
    assert metrics["validation/loss"] == pytest.approx(l1, rel=1e-4)


def test_padded_rows_change_no_metric(arrays):
    workload = get_workload("mini_fastmri")
    (batch,) = workload._build_input_queue(None, "validation", "", 201)
    labels = tuple(batch[key] for key in workload.metric_inputs)

    padded = mean_similarity(labels, batch["inputs"], batch["weights"])

    part = arrays.validation
    whole = tuple(part[key] for key in workload.metric_inputs)
    assert padded == pytest.approx(float(mean_similarity(whole, part["inputs"], None)), rel=1e-5)


def test_a_third_of_the_columns_of_k_space_is_kept():
    patch = np.random.default_rng(0).normal(size=(1, SIDE, SIDE)) + 10  # its magnitude is itself

    kept = np.abs(np.fft.fftshift(np.fft.fft2(zero_filled(patch)), axes=(1, 2)))[0]

    columns = np.flatnonzero(kept.max(0) > 1e-9)
    # The mask is not symmetric, so the magnitude fills the mirrored columns a little.
    assert set(range(13, 19)) <= set(columns)
    assert np.linalg.norm(zero_filled(patch)) <= np.linalg.norm(patch)  # by Parseval
    constant = np.full((1, SIDE, SIDE), 0.3)
    np.testing.assert_allclose(zero_filled(constant), constant)


def test_patches_are_standardised_and_clipped(arrays):
    for part in vars(arrays).values():
        whole = part["inputs"][np.abs(part["inputs"]).max((1, 2)) < 6]  # nothing is clipped
        assert len(whole) > 0.9 * len(part["inputs"])
        np.testing.assert_allclose(whole.mean((1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(whole.std((1, 2)), 1, atol=1e-5)
        assert max(np.abs(part["inputs"]).max(), np.abs(part["targets"]).max()) <= 6
        largest = original(part, "targets").max((1, 2))
        assert np.all(part["volume_max"] >= largest - 1e-3)
        assert len(np.unique(part["volume_max"])) <= 2  # one for each photograph


def test_validation_and_test_patches_come_from_other_columns(arrays):
    pictures = photographs.load_photographs() / 255
    regions = (0, 192), (192, 256), (256, 320)
    for part, (first, last) in zip(vars(arrays).values(), regions, strict=True):
        patch = original({key: value[:1] for key, value in part.items()}, "targets")[0]
        windows = np.lib.stride_tricks.sliding_window_view(
            pictures[:, :, first:last], (SIDE, SIDE), axis=(1, 2)
        )
        corner = windows[..., 0, 0]
        candidates = np.argwhere(np.abs(corner - patch[0, 0]) < 1e-3)
        assert any(np.allclose(windows[tuple(at)], patch, atol=2e-3) for at in candidates)


def test_photographs_are_scikit_learns():
    pytest.importorskip("PIL")

    np.testing.assert_array_equal(photographs.make_photographs(), photographs.load_photographs())


def test_other_photographs_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "other.npz"
    np.savez(path, photographs=np.zeros((2, 213, 320), np.uint8))
    monkeypatch.setattr(photographs, "FILE", path)

    with pytest.raises(ValueError, match=r"other.npz: the SHA-256 of the array must be 1686"):
        photographs.load_photographs()


def test_space_to_depth_is_undone_and_halving_is_its_mean():
    images = jax.random.normal(KEY, (2, 8, 6, 3))

    deep = space_to_depth(images)

    assert deep.shape == (2, 4, 3, 12)
    np.testing.assert_array_equal(deep[1, 2, 1, :3], images[1, 4, 2])
    np.testing.assert_array_equal(deep[1, 2, 1, 3:6], images[1, 4, 3])
    np.testing.assert_array_equal(depth_to_space(deep), images)
    np.testing.assert_allclose(halve(images), deep.reshape(2, 4, 3, 4, 3).mean(3), rtol=1e-5)


def test_the_transposed_convolution_is_jaxs():
    images = jax.random.normal(KEY, (2, 4, 4, 3))
    layer = ConvTranspose(5)
    variables = layer.init(KEY, images)

    found = layer.apply(variables, images)

    kernel = variables["params"]["kernel"][::-1, ::-1]  # JAX's slides over the spread image
    expected = jax.lax.conv_transpose(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_instance_normalisation_forgets_scale_and_offset_of_each_channel():
    images = jax.random.normal(KEY, (2, 8, 8, 3))

    found = normalise_instance(images)

    np.testing.assert_allclose(normalise_instance(7 * images + 3), found, atol=1e-4)
    np.testing.assert_allclose(found.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.var((1, 2)), 1, atol=1e-3)


def test_dropout_rate_and_key_are_accepted_without_an_effect():
    workload = get_workload("mini_fastmri")
    params, state = workload.init_model_fn(KEY)
    batch = next(workload._build_input_queue(None, "validation", "", 2))

    one, other = (
        workload.model_fn(params, batch, state, ForwardPassMode.TRAIN, key, True, rate)[0]
        for key, rate in ((KEY, 0.0), (None, 0.5))
    )

    np.testing.assert_array_equal(one, other)
