"""How a backend is judged: calls, verdicts, relations, the planted bug that explains a failure, and the report."""
