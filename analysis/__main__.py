"""``python -m analysis``."""

import sys

from analysis.cli import app
from analysis.command_line import run_app

sys.exit(run_app(app, "analysis"))
