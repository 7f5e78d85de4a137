"""What freshet decides, without I/O: messages, their decoding, the interest state and the fold. Knows no Kafka, Faust,
RocksDB or ONNX."""
