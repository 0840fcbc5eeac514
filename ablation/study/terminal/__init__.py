"""What a study shows in a terminal: the table of its runs and the live progress."""
