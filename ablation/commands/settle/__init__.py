"""`ablation settle`: explore, decide at declared looks."""
