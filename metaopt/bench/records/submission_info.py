"""``submission_info.yml``, AlgoPerf's description of a submission: read leniently.

Files in the wild have other names, folded text, paths for folders, empty authors, or an environment
dump in their place. Reading needs PyYAML, of the extra ``bench``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

INFO_FILE = "submission_info.yml"
INFO_GLOBS = ("submission_info.y*ml", "submissions_info.y*ml")
KEYS = (
    "submission_name", "submission_folder", "authors", "affiliations", "version", "ruleset",
    "framework", "description",
)  # fmt: skip
# What a copied template says of itself. The name of the folder is free to choose.
_TEMPLATE_KEYS = ("submission_name", "authors", "description")
LINK = "link"  # of the authors; a key of ours, which AlgoPerf does not have


def read_info(folder: Path, keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Return the entries of a folder's description by key, without empty values.

    Folders lose their path, rulesets and frameworks get their spelling. Entries that cannot be
    read are left out; nothing is an error.
    """
    paths = [path for pattern in INFO_GLOBS for path in sorted(folder.glob(pattern))]
    return parse_info(paths[0].read_text("utf-8", errors="replace"), keys) if paths else {}


def parse_info(text: str, keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Return the entries of a description's text; see :func:`read_info`."""
    import yaml

    try:
        documents = [*yaml.load_all(text, Loader=yaml.BaseLoader)]  # every scalar is a string
        found = {k: v for d in documents if isinstance(d, dict) for k, v in d.items()}
    except yaml.YAMLError:
        found = _read_lines(text)
    values = {key: _one_line(found.get(key)) for key in keys}
    return {key: _spelled(key, value) for key, value in values.items() if value}


def unchanged_keys(folder: Path, template: Path) -> list[str]:
    """Return the keys with which a copied template still describes the template.

    The template itself has none. PyYAML is not needed: an unchanged entry is an unchanged line.
    """
    if folder.resolve() == template.resolve():
        return []
    lines, others = _lines(folder), _lines(template)
    return [
        key
        for key in _TEMPLATE_KEYS
        if any(line.startswith(f"{key}:") and line in others for line in lines)
    ]


def _lines(folder: Path) -> set[str]:
    path = folder / INFO_FILE
    return set(path.read_text("utf-8", "replace").splitlines()) if path.is_file() else set()


def _one_line(value: object) -> str:
    """Return a text, or a list of texts with commas; empty for anything else."""
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    return " ".join(", ".join(texts).split()) if len(texts) == len(parts) else ""


def _spelled(key: str, value: str) -> str:
    plain = value.lower().replace("_", "-")
    if key == "submission_folder":
        return value.rstrip("/").rpartition("/")[2]
    if key == "ruleset":
        rulesets = {"external": "external", "self": "self-tuning"}
        return next((name for start, name in rulesets.items() if plain.startswith(start)), value)
    if key == "framework":
        return {"jax": "JAX", "pytorch": "PyTorch", "torch": "PyTorch"}.get(plain, value)
    return value


def _read_lines(text: str) -> dict[str, str]:
    """Read ``key: value`` lines of invalid YAML; indented lines continue the value."""
    found: dict[str, str] = {}
    key = None
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z_]\w*)\s*:\s*(.*)", line):
            key, value = match[1], match[2].strip()
            found[key] = "" if value in (">", ">-", "|", "|-") else value.strip("'\"")
        elif key is not None and line[:1].isspace():
            found[key] = f"{found[key]} {line.strip()}"
    return found
