"""``python -m analysis``."""

import gc
import sys

from analysis.cli import app
from analysis.command_line import run_app

# Logs are millions of small objects without cycles: looking for some costs a tenth of the time.
gc.set_threshold(100_000, 50, 100)
sys.exit(run_app(app, "analysis"))
