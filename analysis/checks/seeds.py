"""Rules on seeds: recorded, not reused, and derived from the campaign's seed in our logs."""

from collections.abc import Iterator

from analysis.checks.rules import rule
from analysis.logs.logs import Logs, Trial
from metaopt.bench.measure.seeds import derive_seed


def _seed_of(trial: Trial) -> int | None:
    """Return the seed in the meta data, or else in the flags; ``None`` without one."""
    for name in ("meta_data", "flags"):
        seed = trial.document(name).get("rng_seed")
        if isinstance(seed, int) and not isinstance(seed, bool):
            return seed
    return None


@rule(
    "seeds-known",
    "every trial's seed is recorded",
    means="The run cannot be repeated.",
    fix="Copy meta_data_0.json as the runner wrote it.",
)
def unknown_seeds(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials without a seed in their meta data and flags."""
    for trial in logs.all_trials:
        if {"meta_data", "flags"} & trial.documents.keys() and _seed_of(trial) is None:
            yield trial.where, "neither the meta data nor the flags have an rng_seed"


@rule(
    "seeds-agree",
    "all files of a trial name the same seed",
    means="The files are of different runs.",
    fix="Put the files of one run together.",
)
def differing_seeds(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials with different seeds in their files."""
    for trial in logs.all_trials:
        used, asked = (trial.document(n).get("rng_seed") for n in ("meta_data", "flags"))
        own = trial.record.seeds.trial if logs.is_ours and trial.record else used
        # Without a seed in the flags, or with 0, the official runner draws one.
        if used is not None and asked and used != asked:
            yield trial.where, f"rng_seed is {used} in the meta data, {asked} in the flags"
        elif used is not None and used != own:
            yield trial.where, f"rng_seed is {used}, but {own} in the record"


@rule(
    "seeds-reused",
    "no two trials of a study have the same seed",
    severity="note",
    means="The trials begin alike. AlgoPerf's runner does so with all trials of one process.",
    fix="Start each trial on its own, with its own --rng_seed.",
)
def reused_seeds(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials with the seed of an earlier trial of their study."""
    for trials in logs.grouped(lambda key: key[:4]).values():
        first: dict[int, int] = {}
        for trial in trials:
            number, seed = trial.key.trial, _seed_of(trial)
            if seed is not None and first.setdefault(seed, number) != number:
                yield trial.where, f"rng_seed {seed} is that of trial_{first[seed]}"


@rule(
    "seeds-derived",
    "our seeds follow from the campaign's",
    means="The run is not the campaign's: its start was chosen by hand.",
    fix="Run the campaign's command again in an empty folder.",
)
def seeds_not_derived(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find records whose seeds are not derived from the campaign's seed."""
    for trial in logs.trials if logs.is_ours else ():
        record = trial.record
        if record.tuner is not None and record.tuner.get("name") is None:
            continue
        seeds, named = record.seeds, (record.workload, record.study)
        expected = {
            "trial": derive_seed(seeds.campaign, *named, "trial", record.trial),
            "tuner": None if seeds.tuner is None else derive_seed(seeds.campaign, *named, "tuner"),
        }
        for purpose, seed in expected.items():
            if getattr(seeds, purpose) != seed:
                what = f"seed of purpose {purpose!r} is {getattr(seeds, purpose)}, not {seed}"
                yield f"{trial.where}/run.json", what
