"""``python -m analysis``."""

import gc
import sys

# Logs are millions of small objects without cycles: looking for some costs a tenth of the time.
gc.set_threshold(100_000, 50, 100)

from analysis.cli import app  # noqa: E402  # imports are part of it
from analysis.command_line import run_app  # noqa: E402

sys.exit(run_app(app, "analysis"))
