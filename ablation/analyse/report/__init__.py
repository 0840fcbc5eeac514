"""The report: its content, its tables, its page."""
