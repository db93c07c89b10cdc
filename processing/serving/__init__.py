"""Tag texts without torch: ONNX Runtime."""
