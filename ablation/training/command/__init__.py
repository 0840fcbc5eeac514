"""A run that a command of the user's trains: its words, its key, its process, its results."""
