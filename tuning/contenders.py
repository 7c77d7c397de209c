"""Contenders: a submission with its tuner, as ``submission[@space][+tuner]``."""

import dataclasses
import re
from pathlib import Path

from metaopt.bench.loading import Submission, load_submission
from metaopt.bench.tuner import Tuner
from tuning.spaces import parse_space
from tuning.tuners import TUNERS

SUBMISSIONS = Path(__file__).resolve().parents[1] / "submissions"

_PATTERN = re.compile(r"(?P<submission>[^@+]+)(?:@(?P<space>[^@+]+))?(?:\+(?P<tuner>[^@+]+))?")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A submission and how it is tuned; self-tuning submissions have neither space nor tuner."""

    name: str
    submission: Submission
    space: str | None
    tuner: str | None

    def make_tuner(self, seed: int) -> Tuner | None:
        """Return a new tuner, ``None`` for a self-tuning submission."""
        if self.tuner is None:
            return None
        document = self.submission.read_space(self.space)
        where = f"{self.submission.name}{'@' + self.space if self.space else ''}"
        make = TUNERS[self.tuner][1]
        return make(parse_space(document, where), seed, self.submission.defaults)


def parse_contender(text: str, root: Path = SUBMISSIONS) -> Contender:
    """Read ``metaopt``, ``adamw+random`` or ``adamw@paper+grid``.

    Raises:
        ValueError: The form is another, a name is unknown, or submission and tuner do not fit.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"A contender is submission[@space][+tuner], got {text!r}.")
    submission = load_submission(match["submission"], root)
    tuner = match["tuner"]
    if tuner is not None and tuner not in TUNERS:
        raise ValueError(f"{text!r}: no tuner {tuner!r}, only {sorted(TUNERS)}.")
    if submission.ruleset == "self-tuning" and (tuner or match["space"]):
        raise ValueError(f"{text!r}: {submission.name} tunes itself, it takes no space or tuner.")
    if submission.ruleset == "external" and tuner is None:
        raise ValueError(f"{text!r} needs a tuner, as in '{text}+random'; there are {[*TUNERS]}.")
    space = match["space"]
    name = submission.name + (f"@{space}" if space else "") + (f"+{tuner}" if tuner else "")
    contender = Contender(name, submission, space, tuner)
    contender.make_tuner(seed=0)  # a bad space, or a grid over a range, is said now
    return contender
