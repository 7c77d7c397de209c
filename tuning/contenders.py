"""Contenders: a submission with its tuner, as ``submission[@space][+tuner]``, and variants.

A variant is a contender with a name of its own and some hyperparameters fixed, for ablations.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from metaopt.bench.contract.loading import Submission, load_submission
from metaopt.bench.contract.spaces import Point, Value, check_point, parse_space
from metaopt.bench.contract.tuner import Tuner
from tuning.tuners import TUNERS, DefaultsTuner, get_tuner

SUBMISSIONS = Path(__file__).resolve().parents[1] / "submissions"

_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PATTERN = re.compile(r"(?P<submission>[^@+]+)(?:@(?P<space>[^@+]+))?(?:\+(?P<tuner>[^@+]+))?")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A submission and its tuner.

    A self-tuning submission has no space and either no tuner (one trial with the whole study's
    budget) or the tuner ``none`` (repeated trials with a trial's budget each).
    """

    name: str
    submission: Submission
    space: str | None  # its name; None: the submission's own, or none
    tuner: str | None  # its name
    fixed: Point | None = None  # hyperparameters that a variant fixes

    @property
    def is_long(self) -> bool:
        """Whether its one trial has the whole study's budget, with the schedule stretched to it."""
        return self.tuner == "long"

    def point(self, proposed: Point | None) -> Point | None:
        """Return a trial's hyperparameters: the tuner's proposal, if any, and the fixed values.

        Raises:
            ValueError: A value is not a finite number, a string or a boolean.
        """
        if self.fixed is None:
            point = proposed if self.submission.ruleset == "external" else None
        else:
            point = {**(self.submission.defaults if proposed is None else proposed), **self.fixed}
        return None if point is None else check_point(point, self.name)

    def search_space(self) -> Any:
        """Return the space that the tuner searches, in AlgoPerf's form; ``None`` if there is none.

        A hyperparameter that a variant fixes has one feasible point.
        """
        if self.submission.ruleset == "self-tuning" or self.tuner in ("none", "long"):
            return None
        document, fixed = self.submission.read_space(self.space), self.fixed or {}
        if isinstance(document, list):
            return [{**point, **fixed} for point in document]
        return document | {name: {"feasible_points": [value]} for name, value in fixed.items()}

    def make_tuner(self, seed: int) -> Tuner | None:
        """Return a new tuner; ``None`` for the single trial of a self-tuning submission."""
        if self.tuner is None:
            return None
        if self.submission.ruleset == "self-tuning":
            return DefaultsTuner(self.submission.defaults)
        document = self.submission.read_space(self.space)
        where = f"{self.submission.name}{'@' + self.space if self.space else ''}"
        make = get_tuner(self.tuner)
        return make(parse_space(document, where), seed, self.submission.defaults)


def parse_contender(text: str) -> Contender:
    """Read ``metaopt``, ``adamw+random`` or ``adamw@paper+grid``.

    Raises:
        ValueError: The form is wrong, a name is unknown, or submission and tuner do not fit.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"A contender is submission[@space][+tuner], got {text!r}.")
    submission = load_submission(match["submission"], SUBMISSIONS)
    check_point(submission.defaults, f"{submission.name}, DEFAULTS")
    tuner = match["tuner"]
    if tuner is not None:
        try:
            get_tuner(tuner)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
    if submission.ruleset == "self-tuning" and (tuner not in (None, "none") or match["space"]):
        raise ValueError(
            f"{text!r}: {submission.name} tunes itself. It takes no space and no tuner but 'none'."
        )
    if submission.ruleset == "external" and tuner is None:
        raise ValueError(f"{text!r} needs a tuner, as in '{text}+random'; there are {[*TUNERS]}.")
    space = match["space"]
    name = submission.name + (f"@{space}" if space else "") + (f"+{tuner}" if tuner else "")
    contender = Contender(name, submission, space, tuner)
    contender.make_tuner(seed=0)  # reports a bad space or a grid over a range now
    return contender


def make_variant(name: str, of: str, fixed: dict[str, Value]) -> Contender:
    """Return the contender ``of`` under another name, with the hyperparameters in ``fixed``.

    Raises:
        ValueError: The name cannot be a folder, ``of`` is no contender, or a hyperparameter is
            unknown or not a finite 32-bit number.
    """
    if not _VARIANT.fullmatch(name):
        raise ValueError(
            f"A variant's name has only letters, digits, '_', '-' and '.', got {name!r}."
        )
    base = parse_contender(of)
    known = base.submission.defaults
    if not fixed or not set(fixed) <= set(known):
        raise ValueError(
            f"Variant {name!r} must fix hyperparameters of {base.submission.name}, which are "
            f"{sorted(known)}, got {sorted(fixed)}."
        )
    check_point(fixed, f"Variant {name!r}")
    return dataclasses.replace(base, name=name, fixed=fixed)
