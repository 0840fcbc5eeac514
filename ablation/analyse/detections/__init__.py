"""What the runs detected: matching, AP, thresholds, calibration, kinds of error."""
