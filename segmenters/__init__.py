"""WHAT: segmentation networks behind one protocol, their training, inference and evaluation."""
