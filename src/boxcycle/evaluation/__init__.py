"""How good detections are: predictions, COCO and VOC figures, comparisons over seeds."""
