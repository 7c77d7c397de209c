"""``PULL_REQUEST.md``: the text of a pull request to mlcommons/submissions_algorithms.

It follows upstream's template. Upstream reads the first yaml block of the text, and acts on pull
requests whose title contains ``[submission]``.
"""

from collections.abc import Sequence

from tuning.packaging.info import SubmissionInfo

PULL_REQUEST_FILE = "PULL_REQUEST.md"
BRANCH = "evaluation"  # of upstream's repository, which its README asks for

_NO_EVIDENCE = (
    "*Add a link to a paper, training logs or a report. The working group evaluates submissions "
    "with more convincing evidence first.*"
)


def pull_request_title(info: SubmissionInfo) -> str:
    """Return the title of the pull request."""
    return f"[submission] {info.submission_name}"


def pull_request_text(info: SubmissionInfo, evidence: str, comments: Sequence[str]) -> str:
    """Return the text of the pull request, as Markdown.

    Args:
        info: The description.
        evidence: Markdown on the submission's performance; empty if there is none.
        comments: Sentences.
    """
    return "\n".join(
        [
            f"# {pull_request_title(info)}",
            "",
            "## Submission Information",
            "",
            f"```yaml\n{info.to_yaml()}```",
            "",
            "## Evidence for the Submission's Performance",
            "",
            evidence.strip() or _NO_EVIDENCE,
            "",
            "## Comments",
            "",
            *(f"* {comment}" for comment in comments),
            "",
        ]
    )
