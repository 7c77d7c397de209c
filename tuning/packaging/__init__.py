"""Submissions as self-contained folders for mlcommons/submissions_algorithms."""

from tuning.packaging.info import SubmissionInfo
from tuning.packaging.package import Packaged, package_submission

__all__ = ["Packaged", "SubmissionInfo", "package_submission"]
