"""``submission_info.yml``, written strictly.

Upstream reads its text from a pull request with less than YAML: it cuts each line at ``#``, and a
workflow passes it through a shell, which expands ``$``, backquotes and backslashes.
"""

import json
import keyword
import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Literal

import pydantic

from metaopt.bench.records.submission_info import INFO_FILE, KEYS

_UNSAFE = re.compile(r"[#$`\\]")


def _check_text(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line of printable characters")
    if found := _UNSAFE.search(value):
        raise ValueError(f"must not contain {found[0]!r}, which upstream's scripts change")
    return value


def _check_folder(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", value) or keyword.iskeyword(value):
        raise ValueError("must be a module's name: lower-case letters, digits and '_'")
    return value


Text = Annotated[
    str,
    pydantic.StringConstraints(strip_whitespace=True, min_length=1),
    pydantic.AfterValidator(_check_text),
]


class SubmissionInfo(pydantic.BaseModel):
    """AlgoPerf's description of a submission; every value is present and one line long."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    submission_name: Text  # on the leaderboard
    submission_folder: Annotated[Text, pydantic.AfterValidator(_check_folder)]
    authors: Text  # separated by commas, as are the affiliations
    affiliations: Text
    version: Text
    ruleset: Literal["external", "self-tuning"]
    framework: Literal["JAX", "PyTorch"]
    description: Text

    def to_yaml(self) -> str:
        """Return the file's text: one key a line, its value quoted."""
        values = self.model_dump()
        return "".join(f"{k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in values.items())


# What a prompt asks for, and an example of it.
_QUESTIONS = {
    "submission_name": ("Name on the leaderboard", "Schedule-free AdamW"),
    "submission_folder": ("Folder there, a module's name", "schedule_free_adamw"),
    "authors": ("Authors, separated by commas", "Ada Lovelace, Alan Turing"),
    "affiliations": ("Affiliations, separated by commas", "University of London"),
    "version": ("Version of the submission", "1.0"),
    "ruleset": ("Ruleset, external or self-tuning", "self-tuning"),
    "framework": ("Framework, JAX or PyTorch", "JAX"),
    "description": ("The algorithm in one line", "AdamW that averages its iterates"),
}


def question(key: str) -> str:
    """Return what to ask for a missing value.

    Examples:
        >>> question("version")
        'Version of the submission (example: 1.0)'
    """
    asked, example = _QUESTIONS[key]
    return f"{asked} (example: {example})"


def check_value(key: str, value: str) -> str:
    """Return a value as it is written.

    Raises:
        ValueError: The value breaks a rule; the message is the rule.
    """
    others = {name: example for name, (_, example) in _QUESTIONS.items()}
    try:
        return getattr(SubmissionInfo(**others | {key: value}), key)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def complete_info(
    found: Mapping[str, str],
    flags: Mapping[str, str | None],
    ask: Callable[[str], str] | None,
    copied: Collection[str] = (),
) -> SubmissionInfo:
    """Return the whole description: flags, else what was found, else the answers.

    Args:
        found: What the folder's description has, by key.
        flags: By key; ``None`` was not given. Each key has a flag of its last word.
        ask: Called with a missing key; returns a checked value. ``None`` if there is no terminal.
        copied: Keys that were left out of ``found`` because they describe the template.

    Raises:
        ValueError: A value is missing or breaks a rule; names its flag.
    """
    values = dict(found) | {key: value for key, value in flags.items() if value is not None}
    missing = [key for key in KEYS if not values.get(key)]
    for key in [key for key in KEYS if values.get(key)]:  # before a person types anything
        try:
            values[key] = check_value(key, values[key])
        except ValueError as error:
            raise ValueError(f"{key} {values[key]!r}: {error}; give {_flag(key)}.") from None
    if missing and ask is None:
        lacks = [key for key in missing if key not in copied]
        still = [key for key in missing if key in copied]
        parts = [f"lacks {', '.join(lacks)}"] if lacks else []
        parts += [f"still has the template's {', '.join(still)}"] if still else []
        flags_missing = ", ".join(_flag(key) for key in missing)
        raise ValueError(f"{INFO_FILE} {' and '.join(parts)}: give {flags_missing}.")
    if ask is not None:
        values |= {key: ask(key) for key in missing}
    return SubmissionInfo(**values)  # type: ignore[arg-type]


def _flag(key: str) -> str:
    return f"--{key.removeprefix('submission_')}"
