"""Fingerprints, and that seconds of different hardware do not meet by accident."""

import copy
import json
import math
import random

import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.logs.competition import Competition, read_official_targets
from analysis.logs.hardware import (
    Fingerprint,
    HardwareChoice,
    fingerprint_of,
    hardware_of,
)
from analysis.logs.reader import read_logs
from analysis.report.marks import Marks
from analysis.report.tables.hardware_tables import across_hardware_table
from analysis.report.tables.score_tables import score_table
from analysis.scoring.machines import (
    measure_hardware,
    reference_ratio,
    seconds_per_gradient,
)
from analysis.scoring.scores import score_logs
from metaopt.bench import records
from metaopt.bench.trial.environment import describe_environment

INF = math.inf
FAST = {
    "software": {"python": "3.12.1", "jax": "0.10.2", "optuna": "5.0.0", "xla_flags": ""},
    "hardware": {
        "cpu": "AMD EPYC 9V74 80-Core Processor", "cpu_count": 2, "memory_bytes": 16 * 2**30,
        "backend": "cpu", "devices": ["cpu"], "platform": "Linux-1", "device_version": "cpu",
    },
}  # fmt: skip
SLOW = {
    "software": {"python": "3.12.1", "jax": "0.10.2", "xla_flags": ""},
    "hardware": {
        "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu_count": 4, "memory_bytes": 8 * 2**30,
        "backend": "gpu", "devices": ["NVIDIA H100 80GB HBM3"] * 2, "device_version": "cuda 12.8",
    },
}  # fmt: skip


def changed(environment, part, **values):
    environment = copy.deepcopy(environment)
    environment.setdefault(part, {}).update(values)
    return environment


def test_a_slug_states_kind_and_number_of_devices():
    assert fingerprint_of(FAST).slug.startswith("amd-epyc-9v74-x2-")
    assert fingerprint_of(SLOW).slug.startswith("nvidia-h100-80gb-hbm3-x2-")
    assert fingerprint_of(changed(SLOW, "hardware", backend="cpu")).slug.startswith(
        "intel-xeon-x4-"
    )
    assert fingerprint_of({}).slug.startswith("unknown-")


def test_a_fingerprint_does_not_change_from_one_version_of_this_code_to_the_next():
    # A stored number: files of the leaderboard are named by it.
    assert Fingerprint(processor="abacus", processor_count=1).slug == "abacus-x1-8adf46"


@pytest.mark.parametrize(
    "part, values",
    [
        ("hardware", {"cpu": "other"}),
        ("hardware", {"cpu_count": 3}),
        ("hardware", {"memory_bytes": 32 * 2**30}),
        ("hardware", {"backend": "gpu"}),
        ("software", {"jax": "0.10.3"}),
        ("software", {"xla_flags": "--xla_cpu_enable_fast_math=true"}),
        ("precision", {"matmul": "highest"}),
        ("precision", {"x64": "True"}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_decides_the_speed_of_a_step_changes_the_id(part, values):
    assert fingerprint_of(changed(FAST, part, **values)).id != fingerprint_of(FAST).id


@pytest.mark.parametrize(
    "part, values",
    [
        ("hardware", {"memory_bytes": 16 * 2**30 - 4096}),
        ("hardware", {"platform": "Linux-2"}),
        ("software", {"optuna": "4.9.0"}),
        ("precision", {"matmul": "default", "x64": "False", "tf32_override": ""}),
        ("git", {"commit": "1" * 40}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_does_not_decide_it_leaves_the_id_as_it_is(part, values):
    assert fingerprint_of(changed(FAST, part, **values)).id == fingerprint_of(FAST).id


def test_the_order_of_keys_and_devices_does_not_matter():
    turned = {key: dict(reversed(SLOW[key].items())) for key in reversed(SLOW)}
    turned["hardware"]["devices"] = list(reversed(turned["hardware"]["devices"]))

    assert fingerprint_of(turned) == fingerprint_of(SLOW)


def test_this_machine_has_a_fingerprint_with_its_precision():
    environment = describe_environment()

    fingerprint = fingerprint_of(environment)

    assert environment["precision"]["matmul"] == "default"
    assert fingerprint.processor_count == environment["hardware"]["cpu_count"]
    assert fingerprint.software["jax"] == environment["software"]["jax"]


def test_untrusted_environments_are_escaped():
    evil = {
        "hardware": {"cpu": "\x1b[31m../../<b>\n" * 100, "cpu_count": "many", "devices": 7,
                     "backend": ["x"], "memory_bytes": -1},
        "software": ["not", "a", "mapping"],
        "precision": {"<i>": {"deep": 1}},
    }  # fmt: skip

    fingerprint = fingerprint_of(evil)

    assert "\x1b" not in fingerprint.processor and len(fingerprint.processor) <= 300
    assert fingerprint.processor_count is None and fingerprint.memory_gib is None
    assert set(fingerprint.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_algoperfs_meta_data_tells_its_two_hardware_classes_apart(tmp_path, official):
    # algoperf.md, section 12: 8 x V100 in v0.5, 4 x A100 later.
    v05 = {"gpu_model_name": "Tesla V100-SXM2-16GB", "gpu_count": 8, "gpu_driver": "535.104.05",
           "cpu_count": 64, "python_version": "3.8.10", "cpu_model_name": "Intel Xeon"}  # fmt: skip
    later = v05 | {"gpu_model_name": "NVIDIA A100-SXM4-40GB", "gpu_count": 4, "cpu_count": 24}

    for name, meta in [("tesla-v100-sxm2-16gb-x8-", v05), ("nvidia-a100-sxm4-40gb-x4-", later),
                       ("unknown-", {})]:  # fmt: skip
        folder = official(tmp_path / name).trial("s", 1, "w", 1, [(0.4, 1.0)])
        target = {"target_metric_name": "loss", "validation_target_value": 0.5}
        target = {f"workload.{key}": value for key, value in target.items()}
        records.write_json(folder / "meta_data_0.json", meta | target)
        (slug,) = hardware_of(read_logs(tmp_path / name))
        assert slug.startswith(name)


def test_studies_on_other_hardware_are_no_misses(tmp_path, official):
    built = official(tmp_path / "logs")
    for study, name in enumerate(("V100", "V100", "V100", "A100", "A100"), start=1):
        folder = built.trial("s", study, "easy", 1, [(0.4, 10.0 * study)])
        path = folder / "meta_data_0.json"
        meta = json.loads(path.read_text()) | {"gpu_model_name": name, "gpu_count": 8}
        records.write_json(path, meta)
    targets = built.targets(tmp_path / "t.json", base_workloads=["easy"])
    competition = Competition(read_official_targets(targets), None, 5, 1, 10.0)
    logs = read_logs(built.root, None, competition)

    medians = {}
    for slug in hardware_of(logs):
        selected = HardwareChoice((slug,)).select(logs)
        medians[slug[:4]] = score_logs(selected).cells["s", "easy"].median("given")

    assert (
        score_logs(logs, hardware=HardwareChoice(mix=True)).cells["s", "easy"].median("given")
        == 30.0
    )
    assert medians == {"v100": 20.0, "a100": 45.0}


@pytest.fixture
def two_machines(build, tmp_path):
    """a and b on a fast machine; a and c on a slow one, where a takes four times as long."""
    b = build(tmp_path, ["a", "b", "c"], ["w"], 4, currency="seconds")
    for study in (1, 2):
        b.trial("a", "w", study, 100.0, reached=100.0, environment=FAST)
        b.trial("b", "w", study, 200.0, reached=200.0, environment=FAST)
        b.trial("a", "w", study + 2, 400.0, reached=400.0, environment=SLOW)
        b.trial("c", "w", study + 2, 200.0, reached=200.0, environment=SLOW)
    return tmp_path


def slugs(path):
    return sorted(hardware_of(read_logs(path)), key=lambda slug: not slug.startswith("amd"))


def test_seconds_of_different_hardware_in_one_table_are_refused_by_name(two_machines):
    logs = read_logs(two_machines)

    with pytest.raises(ValueError, match="not comparable") as error:
        score_logs(logs, unit="seconds")

    for word in (*slugs(two_machines), "--hardware", "--mix-hardware", "--cost", "hardware`"):
        assert word in str(error.value)


@pytest.mark.parametrize("currency", ["steps", "gradient_evaluations"])
def test_steps_and_gradient_evaluations_may_be_compared_across_hardware(two_machines, currency):
    assert score_logs(read_logs(two_machines), unit=currency).notes == ()


def test_a_mix_that_is_asked_for_is_given_and_the_table_says_so(two_machines):
    logs = read_logs(two_machines)

    for choice in (HardwareChoice(mix=True), HardwareChoice(tuple(slugs(two_machines)))):
        scores = score_logs(choice.select(logs), unit="seconds", hardware=choice)

        caption = " ".join(score_table(scores, Marks()).notes)
        assert "MIXED HARDWARE" in caption
        assert all(slug in caption for slug in slugs(two_machines))


def test_one_hardware_by_slug_or_id_has_a_table_of_its_own(two_machines):
    fast, slow = slugs(two_machines)
    logs = read_logs(two_machines)

    for name in (fast, fast.split("-")[-1]):
        choice = HardwareChoice((name,))
        scores = score_logs(choice.select(logs), unit="seconds", hardware=choice)

        assert set(scores.contenders) == {"a", "b"} and scores.notes == ()
        assert scores.cells["b", "w"].given == (2.0, 2.0)
    there = HardwareChoice((slow,)).select(logs)
    assert set(there.contenders) == {"a", "c"}
    assert there.study_count == 2 and "its studies 3, 4 are numbered from 1" in there.notes[-1]
    assert score_logs(there, unit="seconds").cells["c", "w"].given == (2.0, 2.0)


def test_hardware_that_is_not_there_is_refused_with_what_is(two_machines):
    with pytest.raises(ValueError, match=r"No runs on hardware 'abacus', only on \['"):
        HardwareChoice(("abacus",)).select(read_logs(two_machines))


@pytest.mark.parametrize("command", ["score", "statistics"])
def test_the_commands_refuse_and_give_way_to_the_flag(two_machines, capsys, command):
    arguments = [command, str(two_machines), "--cost", "seconds"]

    assert run_app(app, "analysis", arguments) == 2
    refusal = capsys.readouterr().err
    assert run_app(app, "analysis", [*arguments, "--mix-hardware"]) == 0
    mixed = capsys.readouterr().out
    assert run_app(app, "analysis", [*arguments, "--hardware", slugs(two_machines)[0]]) == 0
    single = capsys.readouterr().out

    assert "Seconds of different hardware" in refusal and refusal.count("\n") == 1
    assert "MIXED HARDWARE" in mixed and "MIXED HARDWARE" not in single


@pytest.fixture
def timed(build, tmp_path):
    """Like two_machines, but a gradient evaluation has another speed in each of the four runs."""
    b = build(tmp_path, ["a", "b", "c"], ["w"], 2)
    for name, study, environment, per_gradient, compilation in [
        ("a", 1, FAST, 0.01, 5.0), ("b", 1, FAST, 0.02, 0.0),
        ("a", 2, SLOW, 0.04, 0.0), ("c", 2, SLOW, 0.02, 7.0),
    ]:  # fmt: skip
        seconds = 200 * per_gradient + compilation
        cost = records.Cost(steps=100, gradient_evaluations=200.0, seconds=seconds)
        ledger = records.Ledger(cost=cost, compilation_seconds=compilation)
        b.trial(name, "w", study, 100.0, reached=50.0, ledger=ledger, environment=environment)
    return tmp_path


def test_seconds_per_gradient_over_a_reference_go_across_hardware(timed):
    fast, slow = sorted(
        measure_hardware([read_logs(timed)], "given"), key=lambda one: one.slug[:3] != "amd"
    )

    assert fast.seconds == pytest.approx({("a", "w"): 0.01, ("b", "w"): 0.02})
    assert slow.seconds == pytest.approx({("a", "w"): 0.04, ("c", "w"): 0.02})
    # b takes twice the reference's time where it ran, c half of it.
    assert reference_ratio(fast.seconds, "b", "w", "a") == pytest.approx(2.0)
    assert reference_ratio(slow.seconds, "c", "w", "a") == pytest.approx(0.5)
    assert math.isnan(reference_ratio(slow.seconds, "b", "w", "a"))  # not measured there
    assert math.isnan(reference_ratio(fast.seconds, "b", "w", "c"))


@pytest.mark.parametrize(
    ("mine", "reference", "ratio"),
    [(1.0, 4.0, 0.25), (0.0, 4.0, 0.0), (1.0, 0.0, math.nan), (0.0, 0.0, math.nan)],
)
def test_a_ratio_over_no_seconds_is_not_defined(mine, reference, ratio):
    seconds = {("a", "w"): mine, ("r", "w"): reference}

    assert reference_ratio(seconds, "a", "w", "r") == pytest.approx(ratio, nan_ok=True)


def test_compilation_is_no_part_of_the_seconds_that_compare_hardware(build, tmp_path):
    b = build(tmp_path, ["first", "second"], ["w"], 1)
    cost = records.Cost(steps=100, gradient_evaluations=100.0, seconds=3.0)
    for name, compilation in [("first", 2.0), ("second", 0.0)]:
        seconds = cost.seconds if compilation else 1.0
        ledger = records.Ledger(
            cost=cost.model_copy(update={"seconds": seconds}), compilation_seconds=compilation
        )
        b.trial(name, "w", 1, 100.0, ledger=ledger)

    assert seconds_per_gradient(read_logs(tmp_path)) == {
        ("first", "w"): pytest.approx(0.01), ("second", "w"): pytest.approx(0.01)
    }  # fmt: skip


def test_seconds_do_not_rank_where_budgets_are_in_something_else(hand_made):
    with pytest.raises(ValueError, match="`--cost seconds` needs budgets in seconds"):
        score_logs(read_logs(hand_made()), unit="seconds")


def test_the_table_across_hardware_shows_speed_its_ratio_steps_and_gradients(timed):
    measured = measure_hardware([read_logs(timed)], "given")
    table = across_hardware_table(measured, "a", Marks())

    rows = {row[1]: row[2:] for row in table.texts}
    fast = 0 if table.header[2].startswith("amd") else 4
    assert rows["b"][fast : fast + 4] == ("0.02", "2", "50", "50")
    assert rows["b"][4 - fast : 8 - fast] == ("", "", "", "")
    assert rows["c"][4 - fast : 8 - fast] == ("0.02", "0.5", "50", "50")
    assert len(across_hardware_table(measured, None, Marks()).header) == 2 + 2 * 3  # no ratios
    with pytest.raises(
        ValueError, match=r"No runs of the reference 'z', only of \['a', 'b', 'c'\]"
    ):
        across_hardware_table(measured, "z", Marks())


def test_the_order_of_trials_does_not_change_what_hardware_there_is(two_machines):
    logs = read_logs(two_machines)
    shuffled = list(logs.trials)
    random.Random(0).shuffle(shuffled)

    before = json.dumps(list(hardware_of(logs)))
    object.__setattr__(logs, "trials", tuple(shuffled))

    assert json.dumps(list(hardware_of(logs))) == before
