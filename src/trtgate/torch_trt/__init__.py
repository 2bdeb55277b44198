"""Everything that depends on which torch_tensorrt and TensorRT are installed: 2.11 to 2.14, RTX or standard."""
