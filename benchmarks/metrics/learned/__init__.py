"""Metrics that are neural networks: LPIPS, FID, ColorVideoVDP."""
