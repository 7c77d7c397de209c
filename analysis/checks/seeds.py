"""Rules on seeds: recorded, not used twice, and ours derived as they should be."""

from collections.abc import Iterator

from analysis.checks.subject import LogSubject, log_rule, seed_of
from metaopt.bench.seeds import derive_seed


def _unknown(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        if ("meta_data" in trial.documents or "flags" in trial.documents) and seed_of(
            trial
        ) is None:
            yield trial.where, "neither the meta data nor the flags have an rng_seed"


def _disagreeing(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial in subject.trials:
        used, asked = (trial.document(n).get("rng_seed") for n in ("meta_data", "flags"))
        record = subject.record(trial)
        # No seed asked for, or 0: the official runner draws one.
        if used is not None and asked and used != asked:
            yield trial.where, f"rng_seed is {used} in the meta data, {asked} in the flags"
        elif record is not None and used is not None and used != record.seeds.trial:
            yield trial.where, f"rng_seed is {used}, that of the record {record.seeds.trial}"


def _reused(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trials in subject.grouped(lambda key: key[:4]).values():
        first: dict[int, str] = {}
        for trial in trials:
            seed = seed_of(trial)
            if seed is not None and first.setdefault(seed, trial.where) != trial.where:
                yield (
                    trial.where,
                    f"rng_seed {seed} is that of trial_{first[seed].rpartition('_')[2]}",
                )


def _underived(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, record in subject.records:
        if record.tuner is not None and record.tuner.get("name") is None:
            continue
        seeds, named = record.seeds, (record.workload, record.study)
        expected = {
            "trial": derive_seed(seeds.campaign, *named, "trial", record.trial),
            "tuner": None if seeds.tuner is None else derive_seed(seeds.campaign, *named, "tuner"),
            "fixed_batch": None
            if seeds.fixed_batch is None
            else derive_seed(seeds.campaign, *named, "fixed_batch"),
        }
        for purpose, seed in expected.items():
            if getattr(seeds, purpose) != seed:
                what = f"seed of purpose {purpose!r} is {getattr(seeds, purpose)}, not {seed}"
                yield f"{trial.where}/run.json", what


RULES = (
    log_rule(
        "seeds-known",
        "every trial's seed is recorded",
        _unknown,
        means="The run cannot be repeated.",
        mend="Copy meta_data_0.json as the runner wrote it.",
    ),
    log_rule(
        "seeds-agree",
        "all files of a trial name the same seed",
        _disagreeing,
        means="The files are of different runs.",
        mend="Put the files of one run together.",
    ),
    log_rule(
        "seeds-reused",
        "no two trials of a study have the same seed",
        _reused,
        severity="note",
        means="The trials begin alike. AlgoPerf's runner does so with all trials of one process.",
        mend="Start each trial on its own, with its own --rng_seed.",
    ),
    log_rule(
        "seeds-derived",
        "our seeds follow from the campaign's",
        _underived,
        means="The run was not that of the campaign: its start was chosen by hand.",
        mend="Run the campaign's command again in an empty folder.",
    ),
)
