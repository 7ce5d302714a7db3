"""The network in PyTorch: keypoint detector, attention over source pictures, warping and decoder."""
