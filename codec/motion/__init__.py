"""Keypoint motion to bytes: the predictive coder of calls and the transform coder of files."""
