"""How sure the scores are: intervals, comparisons, ranks."""
