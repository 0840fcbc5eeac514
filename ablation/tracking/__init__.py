"""A run's folder, which is the truth, and the MLflow store that mirrors it."""
