"""What a backend is asked, and what is true: problems, cases, exact answers, and bounds of the error."""
