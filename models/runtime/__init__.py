"""Runtimes that execute the shipped network: ONNX Runtime (CPU), PyTorch, and CUDA with batching over callers."""
