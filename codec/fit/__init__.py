"""Fitting the transmitted keypoints to the picture: alignment and the keypoint fit."""
