"""Networks as files of other tools: ONNX, StableHLO, and code of one's own; each proven before it gets its name."""
