"""Training: configuration, losses, keypoint fitting in the loop, training runs and evaluation."""
