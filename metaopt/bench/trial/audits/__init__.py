"""The audits: parts of a trial are run again, to check the costs that its submission declares."""
