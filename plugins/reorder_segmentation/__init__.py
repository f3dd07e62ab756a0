"""Semantic segmentation: the class of each pixel, from the restored grid."""
