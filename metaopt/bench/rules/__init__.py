"""The rules as software: mistakes that would disqualify or break a submission, or a workload."""
