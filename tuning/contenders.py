"""Contenders: a submission with its tuner, as ``submission[@space][+tuner]``, and variants.

A variant is a contender under a name of its own with some hyperparameters fixed: an ablation.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from metaopt.bench.contract.loading import Submission, load_submission
from metaopt.bench.contract.spaces import Point, check_point, parse_space
from metaopt.bench.contract.tuner import Tuner
from tuning.tuners import TUNERS, DefaultsTuner, get_tuner

Hyperparameter = float | int | str | bool

SUBMISSIONS = Path(__file__).resolve().parents[1] / "submissions"

_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PATTERN = re.compile(r"(?P<submission>[^@+]+)(?:@(?P<space>[^@+]+))?(?:\+(?P<tuner>[^@+]+))?")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A submission and how it is tuned.

    A self-tuning submission has no space, and no tuner but ``none``: with it, it runs again and
    again, a trial's budget each, instead of once with the whole study's.
    """

    name: str
    submission: Submission
    space: str | None
    tuner: str | None
    fixed: dict[str, Hyperparameter] | None = None  # what a variant decides over its tuner

    def point(self, proposed: Point | None) -> Point | None:
        """Return a trial's hyperparameters: what the tuner proposes, if any, and what is fixed.

        Raises:
            ValueError: A value is not a finite number, a string or a boolean.
        """
        if self.fixed is None:
            point = proposed if self.submission.ruleset == "external" else None
        else:
            point = {**(self.submission.defaults if proposed is None else proposed), **self.fixed}
        return None if point is None else check_point(point, self.name)

    def search_space(self) -> Any:
        """Return what the tuner searches, in AlgoPerf's form; ``None`` if it searches nothing.

        A hyperparameter that a variant fixes has that one value.
        """
        if self.submission.ruleset == "self-tuning" or self.tuner == "none":
            return None
        document, fixed = self.submission.read_space(self.space), self.fixed or {}
        if isinstance(document, list):
            return [{**point, **fixed} for point in document]
        return document | {name: {"feasible_points": [value]} for name, value in fixed.items()}

    def make_tuner(self, seed: int) -> Tuner | None:
        """Return a new tuner, ``None`` for a self-tuning submission's single run."""
        if self.tuner is None:
            return None
        if self.submission.ruleset == "self-tuning":
            return DefaultsTuner(self.submission.defaults)
        document = self.submission.read_space(self.space)
        where = f"{self.submission.name}{'@' + self.space if self.space else ''}"
        make = get_tuner(self.tuner)
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
    check_point(submission.defaults, f"{submission.name}, DEFAULTS")
    tuner = match["tuner"]
    if tuner is not None:
        try:
            get_tuner(tuner)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
    if submission.ruleset == "self-tuning" and (tuner not in (None, "none") or match["space"]):
        raise ValueError(
            f"{text!r}: {submission.name} tunes itself, it takes no space and no tuner but 'none'."
        )
    if submission.ruleset == "external" and tuner is None:
        raise ValueError(f"{text!r} needs a tuner, as in '{text}+random'; there are {[*TUNERS]}.")
    space = match["space"]
    name = submission.name + (f"@{space}" if space else "") + (f"+{tuner}" if tuner else "")
    contender = Contender(name, submission, space, tuner)
    contender.make_tuner(seed=0)  # a bad space, or a grid over a range, is said now
    return contender


def make_variant(
    name: str, of: str, fixed: dict[str, Hyperparameter], root: Path = SUBMISSIONS
) -> Contender:
    """Return the contender ``of`` under another name, with the hyperparameters in ``fixed``.

    Raises:
        ValueError: The name is no folder's, ``of`` is no contender, or a hyperparameter is not one
            of the submission's, or no number of 32 bits.
    """
    if not _VARIANT.fullmatch(name):
        raise ValueError(f"A variant's name has letters, digits, '_', '-', '.' only, got {name!r}.")
    base = parse_contender(of, root)
    known = base.submission.defaults
    if not fixed or not set(fixed) <= set(known):
        raise ValueError(
            f"Variant {name!r} must fix hyperparameters of {base.submission.name}, which are "
            f"{sorted(known)}; got {sorted(fixed)}."
        )
    check_point(fixed, f"Variant {name!r}")
    return dataclasses.replace(base, name=name, fixed=fixed)
