"""Studies: which runs there are, which of them are done, and where the others run."""
