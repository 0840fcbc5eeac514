"""`ablation plan`: what a study would do and cost, before anything is started."""
