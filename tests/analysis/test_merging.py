"""Several folders or archives of one protocol are one table; others are refused with the reason."""

import json
import shutil
import tarfile

import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.logs.merging import merge_logs, write_merged
from analysis.logs.reader import read_logs
from analysis.scoring.scores import score_logs
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import CAMPAIGN_FILE, RUN_FILE

COSTS = {"a": {"v": 100.0, "w": 400.0}, "b": {"v": 300.0, "w": 200.0}, "c": {"v": 50.0, "w": None}}


@pytest.fixture
def campaign(build, tmp_path):
    """Return a function that writes a campaign of some contenders and workloads."""

    def make(name, contenders, workloads=("v", "w"), studies=3, budget=1000.0, **changes):
        folder = tmp_path / name
        b = build(folder, list(contenders), list(workloads), studies, budget=budget)
        for contender in contenders:
            for workload in workloads:
                for study in range(1, studies + 1):
                    hit = COSTS[contender][workload]
                    b.trial(contender, workload, study, budget, hit, **changes)
                    b.study(contender, workload, study)
        return folder

    return make


def run(*arguments):
    return run_app(app, "analysis", [str(argument) for argument in arguments])


@pytest.mark.parametrize("divided", [["a"], ["a", "b"]])
def test_parts_score_as_the_whole_does(campaign, divided):
    whole = read_logs(campaign("whole", "abc"))
    rest = [name for name in "abc" if name not in divided]
    parts = [read_logs(campaign(name, some)) for name, some in (("one", divided), ("two", rest))]

    merged = merge_logs(parts)

    assert score_logs(merged).scores == score_logs(whole).scores
    assert merged.contenders == whole.contenders == ["a", "b", "c"]
    assert len(merged.studies) == len(whole.studies) == 18
    assert not merged.notes
    reverse = score_logs(merge_logs(parts[::-1]))
    assert reverse.scores == score_logs(whole).scores


def test_parts_may_be_workloads_and_what_is_missing_is_a_miss(campaign):
    parts = [read_logs(campaign("one", "ab", ["v"])), read_logs(campaign("two", "abc", ["w"]))]

    merged = merge_logs(parts)

    assert merged.workloads == ["v", "w"]
    scores = score_logs(merged)
    assert scores.median("c", "v", "given") == float("inf") or ("c", "v") not in scores.cells


def add_source(folder, contenders, toml='seed = 1\ncontenders = ["x"]', **changes):
    """Say in campaign.json what a campaign was made of."""
    path = folder / CAMPAIGN_FILE
    changes = {"contenders": contenders, "workloads": ["v", "w"]} | changes
    source = {"file": "demo", "toml": toml, "changes": changes}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}))
    return folder


def test_parts_of_one_file_still_say_how_each_contender_was_named(campaign):
    one = add_source(campaign("one", "a"), ["folder/a"])
    two = add_source(campaign("two", "bc"), ["b", "folder/c"])

    source = merge_logs([read_logs(one), read_logs(two)]).campaign["source"]

    assert source["changes"]["contenders"] == ["folder/a", "b", "folder/c"]
    assert source["file"] == "demo"


@pytest.mark.parametrize("other", [{"toml": 'contenders = ["y"]'}, {"eval_period": "9steps"}])
def test_parts_of_two_files_have_none(campaign, other):
    one = add_source(campaign("one", "a"), ["folder/a"])
    two = add_source(campaign("two", "bc"), ["b", "folder/c"], **other)

    assert "source" not in merge_logs([read_logs(one), read_logs(two)]).campaign


def test_the_same_study_twice_counts_once_and_with_other_numbers_is_refused(campaign):
    one, two = campaign("one", "ab"), campaign("two", "bc")
    merged = merge_logs([read_logs(one), read_logs(two)])
    assert score_logs(merged).scores == score_logs(read_logs(campaign("whole", "abc"))).scores

    path = sorted((two / "logs" / "b").rglob(RUN_FILE))[0]
    document = json.loads(path.read_text())
    document["best"] = 0.25
    path.write_text(json.dumps(document))

    with pytest.raises(ValueError, match=r"one and .*two both have study 1 of b on v, with other"):
        merge_logs([read_logs(one), read_logs(two)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 2000.0}, "budget of a study on v, 1000.0 and 2000.0"),
        ({"studies": 4}, "number of studies, 3 and 4"),
        ({"target": Target(metric="validation/loss", value=0.2, better="lower")}, "target on v"),
    ],
    ids=["budget", "studies", "target"],
)
def test_another_protocol_is_refused_with_what_differs(campaign, changes, message):
    parts = [read_logs(campaign("one", "a")), read_logs(campaign("two", "b", **changes))]

    with pytest.raises(ValueError, match=f"do not join: they differ in the {message}"):
        merge_logs(parts)


@pytest.mark.parametrize("order", [1, -1])
def test_fewer_studies_are_refused_with_the_command_that_adds_them(campaign, order):
    parts = [read_logs(campaign("one", "a")), read_logs(campaign("two", "b", studies=4))]

    with pytest.raises(ValueError, match="Add the missing studies with") as caught:
        merge_logs(parts[::order])

    one = parts[0].path
    command = f"python -m tuning compare {one}/campaign.json --studies 4 --out {one}`, or"
    assert command in str(caught.value)


def test_another_seed_and_other_code_are_refused(campaign):
    one, two = campaign("one", "a"), campaign("two", "b")
    for path in two.rglob(RUN_FILE):
        document = json.loads(path.read_text())
        document["seeds"]["trial"] += 1
        path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="differ in the seed on v, study 1, trial 1"):
        merge_logs([read_logs(one), read_logs(two)])

    three = campaign("three", "a", ["w"], digest="1")
    with pytest.raises(ValueError, match="differ in the code on w, contender a"):
        merge_logs([read_logs(one), read_logs(three)])


def test_a_written_merge_is_read_as_its_parts(campaign, tmp_path, capsys):
    one, two = campaign("one", "ab"), campaign("two", "bc")
    with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as tar:
        tar.add(two, "two")
    shutil.rmtree(two)
    archive, out = tmp_path / "two.tar.gz", tmp_path / "all"

    assert run("merge", one, archive, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}\n"

    merged = read_logs(out)
    assert score_logs(merged).scores == score_logs(read_logs(campaign("whole", "abc"))).scores
    assert not merged.notes
    assert json.loads((out / CAMPAIGN_FILE).read_text())["contenders"] == ["a", "b", "c"]
    assert run("merge", one, archive, "--out", out) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="not an empty folder"):
        write_merged([(one, None)], [merged], out)


def test_score_report_and_statistics_read_several_folders(campaign, tmp_path, capsys):
    one, two, out = campaign("one", "ab"), campaign("two", "c"), tmp_path / "report"

    assert run("score", one, two, "--format", "json") == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"a", "b", "c"}
    assert run("statistics", one, two) == 0
    assert run("report", one, two) == 2
    assert "Add --out FOLDER" in capsys.readouterr().err
    assert run("report", one, two, "--out", out) == 0
    page = (out / "report.html").read_text("utf-8")
    assert "3 contenders on 2 workloads" in page
