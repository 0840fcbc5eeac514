"""From a study's records to tables, numbers, figures and a report. Imports neither torch nor training."""
