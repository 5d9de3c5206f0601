"""Compares our network with ONNX Runtime on the same weights, input and batch: outputs and time.

    python3 -m venv /tmp/onnx && /tmp/onnx/bin/pip install -r tests/onnx/requirements.txt
    cargo build --release --workspace
    /tmp/onnx/bin/python tests/onnx/bench.py models/weights/nursery.safetensors

The network is built in PyTorch from the file's own description, exported to ONNX as a service would use it (features
of one window and memories in, logits and memories out; fixed batch), and run on one thread. Both sides take turns in
short rounds on one core, so that whatever else the machine does meets both; what counts is the ratio, and only of
runs like these. The limit is what the multiply-accumulates of a window take at the rate at which this core multiplies large
matrices, as candle does it. Fails if the outputs differ. Times are of the network alone, copies of its memories included: ours
hands them in and out as a service must; ONNX Runtime's stay bound to its own buffers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/golden"))
from front_end import features as reference_features  # noqa: E402
from network import PLANES, Network  # noqa: E402
from signal_generator import Lcg, golden_signal  # noqa: E402

TOLERANCE = 1e-4


def read(path):
    with safe_open(path, "numpy") as file:
        description = json.loads(file.metadata()["nursery"])
        return description, {name: file.get_tensor(name) for name in file.keys()}


class Ours:
    """A bench_network process; see models/src/bin/bench_network.rs."""

    def __init__(self, binary, weights):
        self.process = subprocess.Popen([binary, weights], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("bench_network has ended, see above")
        return json.loads(answer)


class Rival:
    """ONNX Runtime with inputs and outputs bound once; the memories go back and forth between two sets of buffers."""

    def __init__(self, network, shape, folder):
        file = str(folder / f"network-{shape[0]}.onnx")
        memories = [torch.zeros(s) for s in network.memory_shapes(shape[0])]
        ins = ["features", *(f"memory{i}" for i in range(len(memories)))]
        outs = ["logits", *(f"next{i}" for i in range(len(memories)))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(shape), *memories), file, input_names=ins, output_names=outs,
                              dynamo=False, opset_version=17)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.features = value(np.zeros(shape, np.float32))
        self.logits = value(np.zeros(self.session.get_outputs()[0].shape, np.float32))
        buffers = [[value(np.zeros(m.shape, np.float32)) for m in memories] for _ in range(2)]
        self.bindings = []
        for now, after in (buffers, buffers[::-1]):
            binding = self.session.io_binding()
            for name, v in zip(ins, [self.features, *now]):
                binding.bind_ortvalue_input(name, v)
            for name, v in zip(outs, [self.logits, *after]):
                binding.bind_ortvalue_output(name, v)
            self.bindings.append(binding)
        self.windows = 0

    def run(self, inputs):
        times = []
        for x in inputs:
            binding = self.bindings[self.windows % 2]
            self.windows += 1
            start = time.perf_counter()
            self.features.update_inplace(x)
            self.session.run_with_iobinding(binding)
            times.append((time.perf_counter() - start) * 1e3)
        return times, self.logits.numpy()


def call_overhead_ms(shape):
    """What calling ONNX Runtime from here costs without a network: its time on a copy of the input."""
    tensor = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "copy", tensor[:1], tensor[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in range(2)]
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", values[0])
    binding.bind_ortvalue_output("y", values[1])
    times, x = [], np.ones(shape, np.float32)
    for _ in range(500):
        start = time.perf_counter()
        values[0].update_inplace(x)
        session.run_with_iobinding(binding)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def check_detector(ours, network, description):
    """The whole detector, front end included, on the golden signal."""
    signal = golden_signal()
    out, _ = reference_features(description["front_end"], signal)
    memories = [torch.zeros(s, dtype=torch.float64) for s in network.memory_shapes(1)]
    with torch.no_grad():
        logits = network.double()(torch.as_tensor(out)[None], *memories)[0][0].numpy()
    network.float()
    want = 1.0 / (1.0 + np.exp(-(description["logit_scale"] * logits + description["logit_bias"])))
    step = len(signal) // len(want)
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        file.write(signal.astype("<f4").tobytes())
        file.flush()
        got = np.array(ours.ask(f"detect {file.name}")["probabilities"])
    late = description["lookahead"] // step
    difference = np.abs(got[:len(want) - late] - want[late:]).max()
    print(f"detector and librosa + PyTorch on {len(want)} frames: largest difference of a probability "
          f"{difference:.1e}")
    return difference


def compare(ours, network, shape, rounds, windows, folder):
    batch = shape[0]
    lcg = Lcg(7)
    inputs = lambda: [lcg.draw(int(np.prod(shape))).astype(np.float32).reshape(shape) for _ in range(windows)]
    rival = Rival(network, shape, folder)
    ours.ask(f"batch {batch}")
    memories = [torch.zeros(s) for s in network.memory_shapes(batch)]
    difference, times, ratios = 0.0, ([], []), []
    for n in range(rounds + 1):
        xs = inputs()
        # Whoever begins has the colder caches.
        if n % 2:
            mine = ours.ask(f"run {windows}")
            theirs, logits = rival.run(xs)
        else:
            theirs, logits = rival.run(xs)
            mine = ours.ask(f"run {windows}")
        got = np.array(mine["logits"], np.float32)
        difference = max(difference, np.abs(got - logits).max())
        if n == 0:
            with torch.no_grad():
                for x in xs:
                    reference, *memories = network(torch.as_tensor(x), *memories)
            difference = max(difference, np.abs(got - reference.numpy()).max())
            continue
        times[0].extend(mine["ms"])
        times[1].extend(theirs)
        ratios.append(statistics.median(mine["ms"]) / statistics.median(theirs))
    mine, theirs = (statistics.median(t) for t in times)
    quarters = statistics.quantiles(ratios, n=4)
    cells = [batch, f"{mine:.3f}", f"{theirs:.3f}", f"{call_overhead_ms(shape):.3f}", f"{mine / batch:.3f}",
             f"{mine / theirs:.2f}", f"{quarters[0]:.2f} to {quarters[2]:.2f}", f"{difference:.0e}"]
    limit = ours.ask("limit")
    cells.append(f"{mine / batch / (limit['macs'] / limit['macs_per_s'] * 1e3):.2f}")
    print("|", " | ".join(map(str, cells)), "|", flush=True)
    return difference


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--binary", default=str(ROOT / "target/release/bench_network"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--core", type=int, help="run both on this core")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    description, tensors = read(options.weights)
    front = description["front_end"]
    network = Network(description["network"], front["mels"]).assign(tensors).eval()
    ours = Ours(options.binary, options.weights)
    print(f"{description['name']} {description['version']}, ONNX Runtime {onnxruntime.__version__}")
    differences = [check_detector(ours, network, description)]
    columns = ["batch", "ours, ms", "ONNX Runtime, ms", "of it the call, ms", "ours per window, ms", "ratio",
               "its quartiles over rounds", "logits differ by", "times the arithmetic limit"]
    print("|", " | ".join(columns), "|")
    print("|" + "---|" * len(columns))
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batch:
            shape = (batch, description["hop"] // front["step"], front["mels"], PLANES)
            windows = max(5, 100 // batch)
            differences.append(compare(ours, network, shape, options.rounds, windows, Path(folder)))
    if not max(differences) <= TOLERANCE:
        sys.exit(f"outputs differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
