"""Keypoint motion to bytes: the transform coder, and the predictive coder of streams and of frames without a source."""
