"""Object detection: boxes from the restored grid (FCOS on a simple pyramid), or from the sequence as it is (DETR)."""
