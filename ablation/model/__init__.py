"""YOLOv4 and its parts."""
