"""Seconds by what they went into."""

from analysis.logs.reader import read_logs
from analysis.training.breakdown import TIME_PARTS, time_breakdown
from metaopt.bench import records


def test_studies_that_ended_know_of_their_tuner_and_of_what_was_lost(build, tmp_path):
    runs = build(tmp_path, ["a+halton"], ["easy"], studies=2)
    runs.whole_study("a+halton", "easy", 1, [None, None])
    runs.trial("a+halton", "easy", 2, 250.0)
    for path in runs.out.rglob(records.RUN_FILE):
        trial = records.read_trial(path)
        seconds = {"tuner_seconds": 3.0, "evaluation_seconds": 0.25}
        ledger = trial.ledger.model_copy(update=seconds)
        records.write_json(path, trial.model_copy(update={"ledger": ledger}))
    (path,) = runs.out.rglob(records.STUDY_FILE)
    study = records.read_study(path).model_copy(update={"tuner_seconds": 7.0, "lost_seconds": 9.0})
    records.write_json(path, study)

    logs = read_logs(runs.out)
    found = time_breakdown([trial.record for trial in logs.trials], logs.studies)

    assert dict(zip(TIME_PARTS, found, strict=True)) == {
        "training": 7.5, "compilation": 0.0, "tuner": 7.0 + 3.0, "evaluation": 0.75,
        "logging": 0.0, "lost": 9.0,
    }  # fmt: skip
