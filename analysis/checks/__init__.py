"""What is wrong with logs: one list of rules for `validate`, `verify` and `submit`."""
