"""`ablation check`: the audit of a data set before training."""
