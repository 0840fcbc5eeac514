"""`ablation confirm`: the finalists of a study on fresh seeds and on the test split."""
