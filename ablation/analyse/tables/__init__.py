"""Records of a study as typed tables: one row per run, one row per arm."""
