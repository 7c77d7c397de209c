"""The official scoring: published tables and, where they are at hand, the competition's logs."""

import csv
import io
import os
import tarfile
from pathlib import Path

import pytest

from analysis.algoperf_rules import (
    OfficialTargets,
    official_scores,
    official_times,
    read_official_targets,
)

# Published times to target (rounded seconds) and scores of AlgoPerf v0.5, self-tuning and external.
PUBLISHED = """\
submission,ruleset,score,criteo1tb,fastmri,imagenet_resnet,imagenet_vit,librispeech_conformer,\
librispeech_deepspeech,ogbg,wmt,criteo1tb_embed_init,fastmri_tanh,imagenet_resnet_large_bn_init,\
librispeech_conformer_layernorm,ogbg_model_size,wmt_glu_tanh
shampoo_submission,external,0.7784,5043,1321,inf,33094,47445,34624,3363,38656,246,1949,58546,41695,3601,11814
schedule_free_adamw,external,0.7077,5164,1162,inf,44005,56121,43256,5275,16013,366,3604,inf,34536,11242,5947
generalized_adam,external,0.6383,6403,1581,61257,64740,inf,37496,5785,30284,384,3428,55657,50467,11786,16003
cyclic_lr,external,0.6301,5163,2200,inf,62445,57566,38986,6948,23562,606,3866,inf,56129,9335,16857
nadamp,external,0.5909,6162,1980,inf,68105,57675,33171,7944,38684,502,4300,56674,51916,13706,22725
baseline,external,0.5707,7208,2030,inf,70197,54769,36024,7697,41189,611,4509,59225,50447,12498,16832
amos,external,0.4918,inf,2941,inf,50496,43293,31735,11071,32833,inf,4304,34760,34653,16356,17722
caspr_adaptive,external,0.4722,nan,1119,inf,44673,inf,41825,2192,32045,nan,1360,inf,36124,2195,nan
lawa_queue,external,0.3699,inf,1971,inf,51189,inf,inf,4617,27171,1053,4863,inf,inf,4464,10521
lawa_ema,external,0.3384,5303,2556,inf,61886,inf,inf,10597,43034,719,5027,inf,inf,13558,18908
schedule_free_prodigy,external,0.0000,nan,1881,inf,inf,inf,inf,11243,inf,nan,5777,inf,inf,inf,19390
schedule_free_adamw,self,0.8542,5764,1321,inf,52381,58997,49010,5994,45376,1925,5114,inf,37413,10292,10148
baseline,self,0.8194,5794,1976,inf,73981,57674,36051,8423,40361,503,4549,inf,56241,12748,28607
nadamw_sequential,self,0.3308,22791,2381,inf,122357,inf,80703,10109,113506,4410,3903,inf,70640,17793,75697
sinv6_75,self,0.1420,nan,3991,inf,inf,inf,122484,27643,87459,nan,7116,inf,155643,inf,21111
sinv6,self,0.0903,nan,4310,inf,inf,inf,136882,25004,111823,nan,7680,inf,111005,inf,21952
adamg,self,0.0000,inf,inf,inf,inf,inf,inf,inf,inf,inf,inf,inf,inf,inf,inf
"""
ROWS = list(csv.DictReader(io.StringIO(PUBLISHED)))
WORKLOADS = list(ROWS[0])[3:]
TARGETS = OfficialTargets(tuple(WORKLOADS[:8]), tuple(WORKLOADS[8:]), {})


def published(ruleset):
    return {r["submission"]: float(r["score"]) for r in ROWS if r["ruleset"] == ruleset}


@pytest.mark.parametrize("ruleset", ["external", "self"])
def test_published_times_give_the_published_scores(ruleset):
    times = {
        row["submission"]: {w: float(row[w]) for w in WORKLOADS}
        for row in ROWS
        if row["ruleset"] == ruleset
    }

    assert official_scores(times, TARGETS) == pytest.approx(published(ruleset), abs=6e-5)


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    folder = os.environ.get("METAOPT_ALGOPERF_LOGS")
    if not folder or not (Path(folder) / "v05_logs.tar.xz").is_file():
        pytest.skip("METAOPT_ALGOPERF_LOGS with v05_logs.tar.xz is not set")
    out = tmp_path_factory.mktemp("v05")
    with tarfile.open(Path(folder) / "v05_logs.tar.xz") as archive:
        members = (m for m in archive if m.name.endswith("eval_measurements.csv"))
        archive.extractall(out, members=members, filter="data")
    targets = read_official_targets(Path(folder) / "workload_targets_v05.json")
    return out / "algoperf_v05" / "logs", targets


@pytest.mark.parametrize("ruleset", ["external", "self"])
def test_the_competitions_logs_give_the_published_scores_and_times(competition, ruleset):
    root, targets = competition

    times = official_times(root / f"{ruleset}_tuning", targets)

    assert official_scores(times, targets) == pytest.approx(published(ruleset), abs=5e-5)
    for row in ROWS:
        if row["ruleset"] == ruleset:
            for workload in WORKLOADS:
                ours = times[row["submission"]].get(workload, float("nan"))
                # Trials that tie in the index: the official scorer takes the first it happens on.
                assert ours == pytest.approx(float(row[workload]), rel=1e-3, abs=1.0, nan_ok=True)


def write_trial(root, name, rows, submission="s", study=1, workload="w_jax"):
    folder = root / submission / f"study_{study}" / workload / name
    folder.mkdir(parents=True)
    lines = ["validation/loss,score", *(f"{loss},{time}" for loss, time in rows)]
    (folder / "eval_measurements.csv").write_text("\n".join(lines))


ONE = OfficialTargets(("w",), (), {"w": ("loss", 0.5)})


def test_the_smallest_evaluation_index_wins_and_time_breaks_ties(tmp_path):
    write_trial(tmp_path, "trial_1", [(0.9, 1.0), (0.9, 2.0), (0.4, 3.0)])
    write_trial(tmp_path, "trial_2", [(0.9, 5.0), (0.5, 9.0)])
    write_trial(tmp_path, "trial_3", [(0.9, 5.0), (0.5, 8.0)])

    assert official_times(tmp_path, ONE) == {"s": {"w": 8.0}}


def test_nan_never_reaches_and_nothing_logged_is_no_study(tmp_path):
    write_trial(tmp_path, "trial_1", [("nan", 1.0)])
    write_trial(tmp_path, "trial_1", [], study=2)

    assert official_times(tmp_path, ONE) == {"s": {"w": float("inf")}}


def test_timestamps_are_cut_off_and_frameworks_too(tmp_path):
    name = "s-2026-01-01-00-00-00"
    write_trial(tmp_path, "trial_1", [(0.1, 4.0)], submission=name, workload="w_pytorch")

    assert official_times(tmp_path, ONE) == {"s": {"w": 4.0}}


def test_another_file_is_no_targets_file(tmp_path):
    (tmp_path / "t.json").write_text("[]")

    with pytest.raises(ValueError, match=r"t\.json: not a workload_targets\.json"):
        read_official_targets(tmp_path / "t.json")
