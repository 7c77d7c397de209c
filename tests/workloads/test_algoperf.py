"""AlgoPerf's workloads under our runner: what can be said without AlgoPerf.

With it: ``tests/algoperf``.
"""

import itertools
from types import SimpleNamespace

import pytest

from metaopt.bench.measure.targets import Target
from metaopt.workloads import algoperf_workloads as algoperf
from metaopt.workloads.registry import get_workload


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(algoperf, "why_unavailable", lambda: "AlgoPerf is not installed")
    algoperf.get_algoperf_workload.cache_clear()


def theirs(metric="accuracy"):
    return SimpleNamespace(
        target_metric_name=metric,
        validation_target_value=0.97,
        test_target_value=0.96,
        step_hint=7813,
        _build_input_queue=lambda key, split, data_dir, **_: itertools.count(key),
        eval_model=lambda *arguments: {"validation/accuracy": 1, "where": len(arguments[4])},
    )


def test_without_algoperf_its_workloads_are_listed_with_the_reason(without):
    listed = algoperf.list_algoperf_workloads()

    assert {"algoperf_mnist", "algoperf_ogbg", "algoperf_wmt"} <= set(listed)
    assert set(listed.values()) == {"unavailable: AlgoPerf is not installed"}
    with pytest.raises(ValueError, match="'algoperf_wmt' is unavailable: AlgoPerf is not inst"):
        get_workload("algoperf_wmt")


@pytest.mark.parametrize(
    "name, size", [("wmt", 128), ("wmt_post_ln", 128), ("imagenet_resnet_silu", 1024)]
)
def test_a_variant_costs_what_its_base_workload_costs(name, size):
    assert algoperf.AlgoPerfWorkload(name, theirs()).reference_batch_size == size


@pytest.mark.parametrize("metric, better", [("accuracy", "higher"), ("wer", "lower")])
def test_targets_are_algoperfs(metric, better):
    targets = algoperf.AlgoPerfWorkload("mnist", theirs(metric)).targets

    assert targets.validation == Target(f"validation/{metric}", 0.97, better)
    assert targets.test == Target(f"test/{metric}", 0.96, better)
    assert targets.step_hint == 7813


def test_the_error_for_missing_data_names_the_environment_variable(monkeypatch, tmp_path):
    workload = algoperf.AlgoPerfWorkload("imagenet_vit_glu", theirs())
    monkeypatch.delenv(algoperf.DATA_VARIABLE, raising=False)

    with pytest.raises(FileNotFoundError, match="folder 'imagenet' in METAOPT_ALGOPERF_DATA_DIR"):
        workload.check_data()
    monkeypatch.setenv(algoperf.DATA_VARIABLE, str(tmp_path))
    (tmp_path / "imagenet").mkdir()
    workload.check_data()
    assert workload.eval_model(1, None, None, None)["where"] == len(str(tmp_path / "imagenet"))


def test_a_queue_is_restored_by_taking_its_batches_again(monkeypatch, tmp_path):
    monkeypatch.setenv(algoperf.DATA_VARIABLE, str(tmp_path))
    (tmp_path / "mnist").mkdir()
    queue = algoperf.AlgoPerfWorkload("mnist", theirs())._build_input_queue(10, "train")
    taken = [next(queue) for _ in range(5)]

    queue.seek(2)

    assert taken == [10, 11, 12, 13, 14]
    assert [next(queue), queue.position] == [12, 3]
    assert queue.restores == "replayed"
