"""What a backend is asked, and what is true: problems, cases, their exact answers, and the bounds of the error."""
