"""Front end and network from the files that export.py wrote: windows of several streams in, probabilities out."""

import numpy as np
import onnxruntime

from .description import description
from .front_end import FrontEnd


class Model:
    """`state_len` values are remembered of each stream, zeros where it begins. One object may be used by several
    threads at once; ONNX Runtime releases the interpreter's lock while it computes."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.front_end = FrontEnd(description(path)["front_end"])
        self.state_len = self.front_end.state_len + self.session.get_inputs()[1].shape[1]

    def fresh(self, streams):
        return np.zeros((streams, self.state_len), np.float32)

    def score(self, states, samples):
        """Probabilities [streams, scores] of int16 samples [streams, n], n a multiple of PIECE. The rows of
        `states` are carried on."""
        ear = self.front_end.state_len
        features = self.front_end.features(states[:, :ear], samples)
        probabilities, states[:, ear:] = self.session.run(None, {"features": features, "memories": states[:, ear:]})
        return probabilities
