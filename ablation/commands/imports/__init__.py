"""`ablation import`: runs made elsewhere, as a table or as COCO detections."""
