"""One run: the loop, its optimizer, checkpoints, detection, evaluation and diagnostics."""
