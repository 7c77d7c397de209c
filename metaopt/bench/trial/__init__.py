"""One trial: its plan, its loop, its clock, its checkpoints and its audits."""
