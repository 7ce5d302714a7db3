"""Export of a trained network to safetensors and ONNX graphs, with a numerical comparison of both."""
