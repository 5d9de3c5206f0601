"""Exports a weights file of nursery to the ONNX file that all rivals load.

    python3 -m venv /tmp/onnx && /tmp/onnx/bin/pip install -r tests/onnx/requirements.txt
    /tmp/onnx/bin/python tests/rivals/export.py models/weights/nursery.safetensors /tmp/nursery.onnx

Inputs: features [streams, frames, mels, 2] with any even number of frames, and what the network remembers of each
stream, memories [streams, values], zeros where it begins. Outputs: probabilities [streams, frames / 2], calibrated as
nursery's own are, and the new memories. The weights' description, with the definition of the front end and the
operating point, goes to a file beside it, here /tmp/nursery.json.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import onnx
import torch
from safetensors import safe_open
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from network import PLANES, Network  # noqa: E402


class Served(nn.Module):
    """The network with its calibration, and with all memories of a stream in one row."""

    def __init__(self, network, scale, bias):
        super().__init__()
        self.network, self.scale, self.bias = network, scale, bias
        self.shapes = [shape[1:] for shape in network.memory_shapes(1)]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]

    def forward(self, features, memories):
        parts = torch.split(memories, self.sizes, 1)
        parts = [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes)]
        logits, *parts = self.network(features, *parts)
        return torch.sigmoid(self.scale * logits + self.bias), torch.cat([part.flatten(1) for part in parts], 1)


def read(path):
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["nursery"]), {name: file.get_tensor(name) for name in file.keys()}


def served(description, tensors):
    network = Network(description["network"], description["front_end"]["mels"]).assign(tensors)
    return Served(network, description["logit_scale"], description["logit_bias"]).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("onnx")
    options = parser.parse_args()
    description, tensors = read(options.weights)
    network = served(description, tensors)
    example = (torch.zeros(2, 40, description["front_end"]["mels"], PLANES), torch.zeros(2, sum(network.sizes)))
    dynamic = {"features": {0: "streams", 1: "frames"}, "memories": {0: "streams"},
               "probabilities": {0: "streams", 1: "scores"}, "next_memories": {0: "streams"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, example, options.onnx, dynamo=False, opset_version=17, dynamic_axes=dynamic,
                          input_names=["features", "memories"], output_names=["probabilities", "next_memories"])
    onnx.checker.check_model(onnx.load(options.onnx))
    Path(options.onnx).with_suffix(".json").write_text(json.dumps(description, indent=1) + "\n")
    print(f"{options.onnx}: {Path(options.onnx).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
