"""Object detection: boxes from the restored grid (FCOS on a simple feature pyramid), or from the sequence as it is (DETR)."""
