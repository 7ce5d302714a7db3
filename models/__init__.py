"""The network: keypoints, cross-modal attention over a set of sources, decoder, training and runtimes."""
