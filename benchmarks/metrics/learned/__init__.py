"""Metrics that are neural networks: LPIPS and DISTS."""
