"""What a user does besides training: each command's work, called by cli.py."""
