"""What `fuzz.py` reads: every reader of a file that a user gives, a right file for each, and how they are damaged."""
