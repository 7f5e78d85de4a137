"""The models: the verified bundle, ONNX Runtime sessions, and the text encoder."""
