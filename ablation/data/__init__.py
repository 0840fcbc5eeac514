"""Data sets: one file per format, and what every format shares (letterbox, augmentation, cache, loader)."""
