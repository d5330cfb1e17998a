"""The operations of an ONNX file as nodes of a graph; `conversion.exports.onnx_model` is the way back.

`ROWS` has a row for each ONNX operation that is read. A row takes the `Writer`, the operation's `Attributes` and its
inputs, and returns what the operation answers: the map of a new node, or numbers and sizes that are known already.
"""
