"""`ablation doctor`: whether this machine is ready, and what to expect of it."""
