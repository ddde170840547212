"""Networks in the fastest runtime that a machine has: torch, onnxruntime, OpenVINO, TensorRT."""
