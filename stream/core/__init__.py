"""The logic of freshet, without I/O: messages, their decoding, the interest state and the fold. It does not import
Kafka, Faust, RocksDB or ONNX."""
