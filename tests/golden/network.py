"""The network in PyTorch, from its description; writes network.json, logits for models/tests/golden.rs.

Run again when the network's definition changes, from the repository's root:

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r tests/golden/requirements.txt
    /tmp/golden/bin/python tests/golden/network.py

Weights and inputs are pseudo-random and made again by the test; the reference runs in double precision.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from signal_generator import Lcg

PLANES = 2


def conv(channels, kernel, stride):
    return {"channels": channels, "kernel": kernel, "stride": stride}


# As in the Rust struct NetConfig: what is served by default, and others that use what it leaves out.
CASES = [
    {
        "name": "served", "mels": 96, "batch": 2, "frames": 80, "seed": 11,
        "config": {
            "convs": [conv(16, [5, 5], [1, 2]), conv(32, [3, 3], [2, 2]), conv(48, [3, 3], [1, 2]),
                      conv(64, [3, 3], [1, 2])],
            "width": 96, "taps": 3, "dilations": [1, 2, 4], "recurrent": 96,
        },
    },
    {
        "name": "without recurrence", "mels": 41, "batch": 3, "frames": 120, "seed": 12,
        "config": {
            "convs": [conv(12, [4, 3], [2, 2]), conv(20, [3, 5], [1, 3]), conv(16, [1, 1], [1, 1]),
                      conv(24, [2, 3], [2, 1])],
            "width": 40, "taps": 5, "dilations": [1, 3, 8], "recurrent": 0,
        },
    },
    {
        "name": "recurrence alone", "mels": 16, "batch": 1, "frames": 160, "seed": 13,
        "config": {"convs": [conv(8, [2, 3], [2, 2])], "width": 24, "taps": 1, "dilations": [1], "recurrent": 20},
    },
]


class Network(nn.Module):
    """Takes features [batch, frames, mels, planes] and the memories of the layers, gives logits [batch, score
    frames] and the new memories. The memories are, in this order: the input frames before each convolution that looks
    back [batch, frames, mels, channels], the input frames before each temporal filter [batch, frames, width], the
    recurrent state [batch, recurrent]. A stream begins with zeros. (Exported with memories channels first, as PyTorch's
    layers have them, ONNX Runtime is some percent slower.)"""

    def __init__(self, config, mels):
        super().__init__()
        self.config, self.mels = config, mels
        self.convs = nn.ModuleList()
        channels, bands = PLANES, mels
        for c in config["convs"]:
            kernel, stride = c["kernel"], c["stride"]
            self.convs.append(
                nn.Conv2d(channels, c["channels"], kernel, stride, padding=(0, kernel[1] // 2)))
            channels, bands = c["channels"], -(-bands // stride[1])
        width, hidden = config["width"], config["recurrent"]
        self.project = nn.Linear(bands * channels, width)
        self.times = nn.ModuleList(
            nn.Conv1d(width, width, config["taps"], dilation=d, groups=width, bias=False)
            for d in config["dilations"])
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in config["dilations"])
        self.gru = nn.GRU(width, hidden, batch_first=True) if hidden else None
        self.head = nn.Linear(width + hidden, 1)

    def memory_shapes(self, batch):
        shapes, channels, bands = [], PLANES, self.mels
        for c in self.config["convs"]:
            if past := c["kernel"][0] - c["stride"][0]:
                shapes.append((batch, past, bands, channels))
            channels, bands = c["channels"], -(-bands // c["stride"][1])
        if self.config["taps"] > 1:
            reach = self.config["taps"] - 1
            shapes += [(batch, reach * d, self.config["width"]) for d in self.config["dilations"]]
        if self.gru is not None:
            shapes.append((batch, self.config["recurrent"]))
        return shapes

    def forward(self, features, *memories):
        memories, kept = list(memories), []

        def extended(x, past):
            if past == 0:
                return x
            x = torch.cat([memories.pop(0), x], 1)
            kept.append(x[:, -past:])
            return x

        x = features
        for layer in self.convs:
            x = extended(x, layer.kernel_size[0] - layer.stride[0])
            # PyTorch wants [batch, channels, time, frequency].
            x = F.relu(layer(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        x = F.relu(self.project(x.flatten(2)))
        for time, mix in zip(self.times, self.mixes):
            past = (self.config["taps"] - 1) * time.dilation[0]
            y = time(extended(x, past).transpose(1, 2)).transpose(1, 2)
            x = x + F.relu(mix(y))
        if self.gru is not None:
            y, state = self.gru(x, memories.pop(0)[None])
            kept.append(state[0])
            x = torch.cat([x, y], 2)
        return self.head(x).squeeze(2), *kept

    def assign(self, tensors):
        """Takes the tensors of a weights file: matrices [inputs, outputs], convolutions flattened as [kernel time ×
        kernel frequency × channels in, channels out], temporal filters [taps, channels]."""
        left = set(tensors)

        def take(name):
            left.remove(name)
            return torch.as_tensor(np.asarray(tensors[name], dtype=np.float64))

        def set_to(parameter, value):
            assert parameter.shape == value.shape, (parameter.shape, value.shape)
            parameter.data = value.to(parameter.dtype).contiguous()

        for i, layer in enumerate(self.convs):
            kernel = (*layer.kernel_size, layer.in_channels, layer.out_channels)
            set_to(layer.weight, take(f"conv{i}.weight").reshape(kernel).permute(3, 2, 0, 1))
            set_to(layer.bias, take(f"conv{i}.bias"))
        dense = [("project", self.project), ("head", self.head)]
        dense += [(f"block{i}.mix", layer) for i, layer in enumerate(self.mixes)]
        for name, layer in dense:
            set_to(layer.weight, take(f"{name}.weight").T)
            set_to(layer.bias, take(f"{name}.bias"))
        for i, layer in enumerate(self.times):
            set_to(layer.weight, take(f"block{i}.time.weight").T[:, None])
        if self.gru is not None:
            set_to(self.gru.weight_ih_l0, take("gru.input.weight").T)
            set_to(self.gru.bias_ih_l0, take("gru.input.bias"))
            set_to(self.gru.weight_hh_l0, take("gru.state.weight").T)
            nn.init.zeros_(self.gru.bias_hh_l0)
        assert not left, f"no place for {sorted(left)}"
        return self


def layout(config, mels):
    """Names and shapes of the tensors of a weights file, in its order."""
    out, channels, bands = [], PLANES, mels

    def dense(name, inputs, outputs, bias=True):
        out.append((f"{name}.weight", (inputs, outputs)))
        if bias:
            out.append((f"{name}.bias", (outputs,)))

    for i, c in enumerate(config["convs"]):
        dense(f"conv{i}", c["kernel"][0] * c["kernel"][1] * channels, c["channels"])
        channels, bands = c["channels"], -(-bands // c["stride"][1])
    width, hidden = config["width"], config["recurrent"]
    dense("project", bands * channels, width)
    for i in range(len(config["dilations"])):
        dense(f"block{i}.time", config["taps"], width, bias=False)
        dense(f"block{i}.mix", width, width)
    if hidden:
        dense("gru.input", width, 3 * hidden)
        dense("gru.state", hidden, 3 * hidden, bias=False)
    dense("head", width + hidden, 1)
    return out


def pseudo_weights(config, mels, seed):
    """Weights uniform within ±sqrt(6 / inputs) (He et al., 2015), biases within ±0.2, rounded to 32 bits."""
    lcg = Lcg(seed)
    tensors = {}
    for name, shape in layout(config, mels):
        scale = np.sqrt(6.0 / shape[0]) if name.endswith(".weight") else 0.2
        values = lcg.draw(int(np.prod(shape))) * scale
        tensors[name] = values.astype(np.float32).reshape(shape)
    return tensors


def main():
    torch.set_num_threads(1)
    out = []
    for case in CASES:
        network = Network(case["config"], case["mels"]).double()
        network.assign(pseudo_weights(case["config"], case["mels"], case["seed"]))
        shape = (case["batch"], case["frames"], case["mels"], PLANES)
        features = torch.as_tensor(Lcg(case["seed"] + 100).draw(int(np.prod(shape))).reshape(shape))
        memories = [torch.zeros(s, dtype=torch.float64) for s in network.memory_shapes(case["batch"])]
        with torch.no_grad():
            logits = network(features, *memories)[0]
        print(f"{case['name']}: {tuple(logits.shape)}, deviation {logits.std():.2f}, largest {logits.abs().max():.2f}")
        out.append(case | {"logits": [[float(f"{x:.8f}") for x in row] for row in logits.tolist()]})
    to = Path(__file__).with_name("network.json")
    to.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
    print(f"{to.name}: {to.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
