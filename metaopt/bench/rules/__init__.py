"""The rules as checks: they find mistakes that disqualify or break a submission or a workload."""
