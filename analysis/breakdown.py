"""What time went into: training, compilation, evaluation, the tuner, logging."""

from collections.abc import Iterable

from metaopt.bench.records import TrialRecord

PARTS = ("training", "compilation", "evaluation", "tuner", "logging", "lost")


def seconds_of(records: Iterable[TrialRecord]) -> tuple[float, ...]:
    """Return the seconds of some trials, all together, in the order of :data:`PARTS`.

    Training and compilation are the submission's own time; the others are not charged. Lost is
    what kills destroyed.
    """
    ledgers = [record.ledger for record in records]
    compiling = sum(ledger.compilation_seconds for ledger in ledgers)
    training = sum(ledger.cost.seconds for ledger in ledgers) - compiling
    rest = (sum(getattr(ledger, f"{part}_seconds") for ledger in ledgers) for part in PARTS[2:])
    return training, compiling, *rest
