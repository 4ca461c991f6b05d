"""A finished run as one folder that runs without samcls: ONNX or torch.export, checked before it is kept."""
