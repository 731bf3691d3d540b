"""Models as ONNX files, whose states are inputs and outputs: for onnxruntime, in whatever language."""
