"""Rounds the weights of an ONNX file to 8 or 7 bits with ONNX Runtime's own function, and prints the operators of the new file."""
import logging
import sys

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)  # it advises to fold constants first, which these files have none of
if len(sys.argv) > 1:  # without files it tells that it can
    source, target, bits = sys.argv[1:]
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=bits == "7")
    print(", ".join(sorted({n.op_type for n in onnx.load(target).graph.node} - {"Squeeze"})))
