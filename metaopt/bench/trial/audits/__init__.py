"""The audits: what a submission declares, checked by running parts of a trial again."""
