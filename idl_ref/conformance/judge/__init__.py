"""How a backend is judged: calls, verdicts, relations, the planted bugs that explain a failure, and the report."""
