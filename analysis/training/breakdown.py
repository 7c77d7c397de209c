"""Seconds of trials by activity: training, compilation, tuner, evaluation, logging, and lost."""

from collections.abc import Iterable

from metaopt.bench.records import StudyRecord, TrialRecord

TIME_PARTS = ("training", "compilation", "tuner", "evaluation", "logging", "lost")


def time_breakdown(
    records: Iterable[TrialRecord], studies: Iterable[StudyRecord]
) -> tuple[float, ...]:
    """Return the seconds of some trials and their studies, in the order of :data:`TIME_PARTS`.

    Training and compilation are the submission's own time. Budgets in seconds are charged for them
    and for the tuner, and not for the other parts. Lost seconds are those of attempts whose machine
    died with their files.

    Args:
        records: The records of the trials.
        studies: The records of the finished studies. They add the tuner's time after the last
            trial, and the time of trials whose files were lost.
    """
    records, studies = list(records), list(studies)
    ended = {(study.contender, study.workload, study.study) for study in studies}
    ledgers = [record.ledger for record in records]
    compiling = sum(ledger.compilation_seconds for ledger in ledgers)
    deciding = sum(study.tuner_seconds for study in studies) + sum(
        record.ledger.tuner_seconds
        for record in records
        if (record.contender, record.workload, record.study) not in ended
    )
    return (
        sum(ledger.cost.seconds for ledger in ledgers) - compiling,
        compiling,
        deciding,
        sum(ledger.evaluation_seconds for ledger in ledgers),
        sum(ledger.logging_seconds for ledger in ledgers),
        sum(study.lost_seconds for study in studies),
    )
