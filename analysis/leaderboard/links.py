"""Where the pages of the leaderboard lie, and the links between them, to records and to code."""

import hashlib
import re
import tomllib
from pathlib import Path
from urllib.parse import quote, urlsplit

from analysis.leaderboard.entries import CampaignEntry, file_name

PROTOCOLS, CONTENDERS, WORKLOADS = "protocols", "contenders", "workloads"
_LONGEST_FILE = 120  # characters, of the 255 that file systems allow with an extension
_FOLDERS = {"external": "external_tuning", "self-tuning": "self_tuning"}


def page_path(kind: str, name: str) -> Path:
    """Return the path of a page below the leaderboard; each name has a path of its own."""
    file = file_name(name)
    if len(file) > _LONGEST_FILE:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        file = f"{file[:_LONGEST_FILE]}~{digest[:12]}"
    return Path(kind) / f"{file}.html"


def href(path: Path, root: str = "../") -> str:
    """Return a relative link to a path below the leaderboard.

    Args:
        path: The path below the leaderboard.
        root: The way from the page to the leaderboard: nothing for its first page.
    """
    return root + quote(path.as_posix())


def safe_link(text: str) -> str | None:
    """Return an untrusted link if it is an https address that shows its host; else ``None``."""
    if not re.fullmatch(r"https://[\x21-\x7e]+", text):
        return None
    try:
        parts = urlsplit(text)
        return text if parts.hostname and "@" not in parts.netloc else None
    except ValueError:  # of a wrong IPv6 address
        return None


def repository(checkout: Path) -> str | None:
    """Return the project's address, of ``pyproject.toml``; ``None`` if it has none there."""
    file = checkout / "pyproject.toml"
    if not file.is_file():
        return None
    urls = tomllib.loads(file.read_text("utf-8")).get("project", {}).get("urls", {})
    return safe_link(urls.get("Repository", "").rstrip("/"))


def commit_link(commit: str, address: str | None) -> str | None:
    """Return the link to a commit; ``None`` without an address or for something else."""
    is_commit = re.fullmatch(r"[0-9a-f]{7,64}", commit)
    return f"{address}/commit/{commit}" if address and is_commit else None


def code_link(entry: CampaignEntry, root: str, address: str | None) -> str | None:
    """Return the link to a submission's code: at its commit, or else in the checkout.

    ``None`` if its folder is not one of the project's.
    """
    if entry.about is None:
        folder = code_folder(entry.submission, entry.ruleset)
    else:
        folder = entry.about.folder
    if not folder:
        return None
    if address is not None and commit_link(entry.commits[-1], address):
        return f"{address}/tree/{entry.commits[-1]}/{folder}"
    return f"{root}../{folder}/submission.py"


def code_folder(submission: str, ruleset: str) -> str:
    """Return the folder of a submission that ships with the project; empty for other names."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", submission):
        return ""
    return f"submissions/{_FOLDERS[ruleset]}/{submission}"
