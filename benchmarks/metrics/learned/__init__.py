"""Metrics that are neural networks: LPIPS."""
