#!/usr/bin/env python3
"""dlc beside what users would pick instead: the same functions, in turn, in one run.

    pip install numpy safetensors torch onnx onnxruntime openvino jax
    (cd benches/rust_peers && cargo build --release)
    cargo build --release && python benches/peers.py [--threads 1] [--rounds 3] [CASE ...]

Every measurement is a process of its own; dlc and its peers take turns, and medians over the rounds
are compared. A ratio above 1 says that dlc is faster. Outputs of inference are compared with those
of PyTorch in f64 on the same weights, dlc's and the peers'; a training step's are in
tests/reference.rs. Peers that are not installed are left out, by name.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile
from pathlib import Path

import in_python, in_rust, steps, unseen, unseen_sequences
from exported import weights_file

ROOT = Path(__file__).resolve().parent.parent
SOURCE = """
model Matmul(x: f32[N, N]) -> f32[N, N] { x |> linear(N, bias=no) }
model Mlp(x: f32[N, 784]) -> f32[N, 10] { x |> linear(512) |> relu |> linear(512) |> relu |> linear(10) }
model Softmax(x: f32[4096, 1024]) -> f32[4096, 1024] { x |> softmax[1] }
model LayerNorm(x: f32[4096, 1024]) -> f32[4096, 1024] { x |> layer_norm }
model Gelu(x: f32[16777216]) -> f32[16777216] { x |> gelu }

model ResNet18C(image: f32[N, 3, 32, 32]) -> f32[N, 10] {
  bn1 = batch_norm
  fc  = linear(10)
  image
    |> conv(64, 3x3, pad = 1, bias = no) |> bn1 |> relu
    |> layer1: repeat 2 { Basic(64) }
    |> layer2: repeat 2 { Basic(128) }
    |> layer3: repeat 2 { Basic(256) }
    |> layer4: repeat 2 { Basic(512) }
    |> global_avg_pool |> fc
}
train ResNet18C {
  data  tensors(image = f32[N, 3, 32, 32], label = i32[N]) batch 32
  loss  cross_entropy(ResNet18C(image), label)
  optim adam(lr = 1e-3)
}

model Lstm(x: f32[N, 64, 256]) -> f32[N, 64, 256] { x |> lstm(256, layers = 2) }
model Encoder(x: f32[N, 128, 768]) -> f32[N, 128, 768] {
  x |> layers: repeat 4 { encoder_layer(12, 3072, activation = gelu, rate = 0.0) }
}
model Attention(x: f32[3, 512, 12, 64]) -> f32[1, 512, 12, 64] { attention(x[0:1], x[1:2], x[2:3]) }
model Causal(x: f32[3, 512, 12, 64]) -> f32[1, 512, 12, 64] {
  attention(x[0:1], x[1:2], x[2:3], causal = yes)
}

block Decoder(room, at)(ids: i32[N, T]) -> [N, T, 50257] {
  param table: [50257, 768] ~ normal(0.0, 0.02)
  x[n, t, d] = table[ids[n, t], d]
  h = x |> learned_positions(1024, room, at)
    |> layers: repeat 12 {
      encoder_layer(12, 3072, pre_norm = yes, activation = gelu, causal = yes, room = room, at = at)
    } |> layer_norm
  h @ transpose(table)
}
model Decode256(ids: i32[1, 1], at: i32[]) -> f32[1, 1, 50257] {
  ids |> named["*"](Decoder(256, at = at))
}
model Decode1024(ids: i32[1, 1], at: i32[]) -> f32[1, 1, 50257] {
  ids |> named["*"](Decoder(1024, at = at))
}

model LstmClass(x: f32[N, 64, 256]) -> f32[N, 10] {
  h = x |> lstm(256, layers = 2)
  h[:, 63] |> linear(10)
}
train LstmClass {
  data  tensors(x = f32[N, 64, 256], label = i32[N]) batch 32
  loss  cross_entropy(LstmClass(x), label)
  optim adam(lr = 1e-3)
}

block Layer(A)(x: [N, T, D]) -> [N, T, D] {
  norm1 = layer_norm()
  norm2 = layer_norm()
  h = x + (x |> norm1 |> self_attention(A, causal = yes))
  h + (h |> norm2 |> linear(4*D) |> gelu |> linear(D))
}
model Characters(ids: i32[N, T]) -> f32[N, T, 128] {
  ids |> embedding(128, 256) |> learned_positions(128)
    |> layers: repeat 4 { Layer(4) } |> layer_norm |> linear(128, bias = no)
}
train Characters {
  data  tensors(ids = i32[N, 128], next = i32[N, 128]) batch 16
  loss  cross_entropy(Characters(ids), next)
  optim adam(lr = 1e-3)
}
"""


GRAPH = ["torch", "onnxruntime", "openvino", "tract"]
MODEL = GRAPH + ["candle"]
PRODUCT = MODEL + ["numpy", "gemm", "faer", "matrixmultiply"]


class Case:
    """A function: a model of dlc, the same in PyTorch, and the shape of its input. `optimizer` makes
    it a training step; `jax` is the function once more, of jax.nn, weights and input. The input is
    numbers, or ids below `ids`; `given` are further inputs of dlc, which are part of the module."""

    def __init__(self, file, model, module, shape, binds=(), name="x", peers=MODEL, optimizer=None, jax=None, ids=None, given={}):
        self.given = given
        self.file, self.model, self.module, self.shape, self.ids = file, model, module, shape, ids
        self.binds, self.name, self.optimizer, self.jax = list(binds), name, optimizer, jax
        self.train = optimizer is not None
        self.peers = list(peers) + (["jax"] if jax else [])


def cases():
    from torch import nn

    class Net(nn.Module):
        """A chain of named layers, the parameter-free ones without names."""

        def __init__(self, *stages):
            super().__init__()
            self.stages = []
            for stage in stages:
                if isinstance(stage, tuple):
                    setattr(self, *stage)
                    stage = stage[1]
                self.stages.append(stage)

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return x

    class Block(nn.Module):
        """A basic or bottleneck block, with torchvision's names."""

        def __init__(self, i, c, stride, deep):
            super().__init__()
            o = 4 * c if deep else c
            sizes = [(i, c, 1, 1), (c, c, 3, stride), (c, o, 1, 1)] if deep else [(i, c, 3, stride), (c, c, 3, 1)]
            self.count = len(sizes)
            for k, (a, b, r, s) in enumerate(sizes, 1):
                setattr(self, f"conv{k}", nn.Conv2d(a, b, r, s, r // 2, bias=False))
                setattr(self, f"bn{k}", nn.BatchNorm2d(b))
            plain = stride == 1 and i == o
            self.downsample = None if plain else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            y = x
            for k in range(1, self.count + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = y.relu() if k < self.count else y
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    def resnet(counts, deep, small=False):
        first = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        stages, width = [("conv1", first), ("bn1", nn.BatchNorm2d(64)), nn.ReLU()], 64
        stages += [] if small else [nn.MaxPool2d(3, 2, 1)]
        for k, count in enumerate(counts):
            c, blocks = 64 << k, []
            for b in range(count):
                blocks.append(Block(width, c, 2 if b == 0 and k > 0 else 1, deep))
                width = 4 * c if deep else c
            stages.append((f"layer{k + 1}", nn.Sequential(*blocks)))
        return Net(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ("fc", nn.Linear(width, 10 if small else 1000)))

    def lenet():
        return Net(
            ("conv1", nn.Conv2d(1, 6, 5, padding=2)), nn.ReLU(), nn.MaxPool2d(2),
            ("conv2", nn.Conv2d(6, 16, 5)), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            ("linear1", nn.Linear(400, 120)), nn.ReLU(), ("linear2", nn.Linear(120, 84)), nn.ReLU(), ("linear3", nn.Linear(84, 10)),
        )

    def mlp():
        return Net(("linear1", nn.Linear(784, 512)), nn.ReLU(), ("linear2", nn.Linear(512, 512)), nn.ReLU(), ("linear3", nn.Linear(512, 10)))

    class Lstm(nn.Module):
        """Two recurrent layers; of the last step, ten scores, if they are asked for."""

        def __init__(self, scores=False):
            super().__init__()
            self.lstm1 = nn.LSTM(256, 256, 2, batch_first=True)
            self.linear1 = nn.Linear(256, 10) if scores else None

        def forward(self, x):
            h = self.lstm1(x)[0]
            return h if self.linear1 is None else self.linear1(h[:, -1])

    class Attention(nn.Module):
        """Of queries, keys and values in one tensor, heads last but one."""

        def __init__(self, causal=False):
            super().__init__()
            self.causal = causal

        def forward(self, x):
            q, k, v = (x[i : i + 1].transpose(1, 2) for i in range(3))
            return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2)

    class Layer(nn.Module):
        """A pre-norm layer that does not see ahead."""

        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(256), nn.LayerNorm(256)
            self.qkv, self.out = nn.Linear(256, 768), nn.Linear(256, 256)
            self.linear1, self.linear2 = nn.Linear(256, 1024), nn.Linear(1024, 256)

        def forward(self, x):
            n, t, d = x.shape
            q, k, v = (y.view(n, t, 4, d // 4).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(d, -1))
            found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = x + self.out(found.transpose(1, 2).reshape(n, t, d))
            return h + self.linear2(nn.functional.gelu(self.linear1(self.norm2(h))))

    class Characters(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.positions = nn.Embedding(128, 256), nn.Parameter(0.02 * torch.randn(128, 256))
            self.layers = nn.Sequential(*[Layer() for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 128, bias=False)

        def forward(self, ids):
            return self.head(self.norm(self.layers(self.table(ids) + self.positions)))

    class Decoding(nn.Module):
        """Attention of one more token to itself and those that have been seen: zeros, as dlc's memory
        is at first."""

        def __init__(self, seen):
            super().__init__()
            self.out_proj = nn.Linear(768, 768)
            self.in_proj_weight, self.in_proj_bias = nn.Parameter(0.02 * torch.randn(2304, 768)), nn.Parameter(torch.zeros(2304))
            for rows in ("keys", "values"):
                self.register_buffer(rows, torch.zeros(1, 12, seen, 64), persistent=False)

        def forward(self, x):
            new = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
            q, k, v = (y.view(1, 1, 12, 64).transpose(1, 2) for y in new.split(768, -1))
            k, v = torch.cat([self.keys, k], 2), torch.cat([self.values, v], 2)
            found = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out_proj(found.transpose(1, 2).reshape(1, 1, 768))

    class DecoderLayer(nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.self_attn, self.norm1, self.norm2 = Decoding(seen), nn.LayerNorm(768), nn.LayerNorm(768)
            self.linear1, self.linear2 = nn.Linear(768, 3072), nn.Linear(3072, 768)

        def forward(self, x):
            h = x + self.self_attn(self.norm1(x))
            return h + self.linear2(nn.functional.gelu(self.linear1(self.norm2(h))))

    class Decoder(nn.Module):
        """GPT-2 small at one more token."""

        def __init__(self, seen):
            super().__init__()
            self.seen, self.table = seen, nn.Parameter(0.02 * torch.randn(50257, 768))
            self.learned_positions1 = nn.Embedding(1024, 768)
            self.layers = nn.Sequential(*[DecoderLayer(seen) for _ in range(12)])
            self.layer_norm1 = nn.LayerNorm(768)

        def forward(self, ids):
            x = nn.functional.embedding(ids, self.table) + self.learned_positions1.weight[self.seen]
            return self.layer_norm1(self.layers(x)) @ self.table.T

    def encoder():
        layer = lambda: nn.TransformerEncoderLayer(768, 12, 3072, 0.0, "gelu", batch_first=True)
        return Net(("layers", nn.Sequential(*[layer() for _ in range(4)])))

    import torch
    from torch import optim

    own, examples = "peers.dl", ROOT / "examples"
    matmul = lambda n: lambda: Net(("linear1", nn.Linear(n, n, bias=False)))
    adamw = lambda parameters: optim.AdamW(parameters, lr=3e-3, weight_decay=0.1)
    adam = lambda parameters: optim.Adam(parameters, lr=1e-3)
    all = {}
    for n in (256, 512, 1024, 2048):
        all[f"matmul_{n}"] = Case(own, "Matmul", matmul(n), (n, n), [f"N={n}"], peers=PRODUCT, jax=lambda nn, w, x: x @ w["linear1.weight"].T)
    for n in (1, 64):
        all[f"mlp_{n}"] = Case(own, "Mlp", mlp, (n, 784), [f"N={n}"], jax=jax_mlp)
    all["lenet_1"] = Case(examples / "lenet.dl", "LeNet", lenet, (1, 1, 28, 28), ["N=1"], "image")
    all["lenet_step_64"] = Case(examples / "lenet.dl", "LeNet", lenet, (64, 1, 28, 28), peers=["torch", "torch-nhwc"], optimizer=adamw)
    all["resnet50_1"] = Case(examples / "resnet.dl", "ResNet50", lambda: resnet([3, 4, 6, 3], True), (1, 3, 224, 224), ["N=1"], "image", MODEL + ["torch-nhwc"])
    all["resnet18_step_32"] = Case(own, "ResNet18C", lambda: resnet([2, 2, 2, 2], False, True), (32, 3, 32, 32), peers=["torch", "torch-nhwc"], optimizer=adam)
    all["softmax"] = Case(own, "Softmax", lambda: nn.Softmax(1), (4096, 1024), jax=lambda nn, w, x: nn.softmax(x, 1))
    all["layer_norm"] = Case(own, "LayerNorm", lambda: Net(("layer_norm1", nn.LayerNorm(1024))), (4096, 1024), jax=jax_layer_norm)
    all["gelu"] = Case(own, "Gelu", nn.GELU, (16777216,), peers=MODEL + ["torch-out"], jax=lambda nn, w, x: nn.gelu(x, approximate=False))
    for n in (1, 32):
        all[f"lstm_{n}"] = Case(own, "Lstm", Lstm, (n, 64, 256), [f"N={n}"])
    all["encoder_128"] = Case(own, "Encoder", encoder, (1, 128, 768), ["N=1"])
    all["attention_512"] = Case(own, "Attention", Attention, (3, 512, 12, 64))
    all["causal_512"] = Case(own, "Causal", lambda: Attention(True), (3, 512, 12, 64))
    for room in (256, 1024):
        all[f"decode_{room}"] = Case(own, f"Decode{room}", lambda: Decoder(255), (1, 1), name="ids", peers=GRAPH, ids=50257, given={"at": 255})
    all["lstm_step_32"] = Case(own, "LstmClass", lambda: Lstm(True), (32, 64, 256), peers=["torch"], optimizer=adam)
    all["characters_step_16"] = Case(own, "Characters", Characters, (16, 128), name="ids", peers=["torch"], optimizer=adam, ids=128)
    return all


def jax_mlp(nn, w, x):
    for k in (1, 2, 3):
        x = x @ w[f"linear{k}.weight"].T + w[f"linear{k}.bias"]
        x = nn.relu(x) if k < 3 else x
    return x


def jax_layer_norm(nn, w, x):
    return nn.standardize(x, -1, epsilon=1e-5) * w["layer_norm1.weight"] + w["layer_norm1.bias"]


def prepare(case):
    """Weights and an input, the same in every process."""
    import torch

    torch.manual_seed(0)
    module = case.module()
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.8, 1.2)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.05)
    x = torch.rand(case.shape) if case.ids is None else torch.randint(case.ids, case.shape)
    return module.train(case.train), x


def child(case, peer, threads):
    """Prints the median seconds of a call, and how far the output is from PyTorch's in f64."""
    import torch

    torch.set_num_threads(1)  # more would not sleep while a peer runs
    module, x = prepare(case)
    seconds, output = side(peer).timed(peer, case, module, x, threads)
    print(seconds, 0.0 if case.train else distance(output, *prepare(case)))


def side(peer):
    return in_rust if peer in in_rust.PEERS else in_python


def distance(output, module, x):
    """The largest difference to PyTorch in f64, by the largest value."""
    import numpy, torch

    with torch.no_grad():
        wanted = module.double()(x.double() if x.is_floating_point() else x).numpy()
    return float(abs(numpy.asarray(output) - wanted).max() / abs(wanted).max())


def inputs(case, x, folder):
    """Options for the inputs that PyTorch gets, too, in files."""
    import numpy

    options = []
    for name, value in {case.name: x.numpy(), **case.given}.items():
        value = numpy.asarray(value)
        numpy.save(f"{folder}/{name}.npy", value if value.dtype == numpy.float32 else value.astype(numpy.int32))
        options += ["--input", f"{name}={folder}/{name}.npy"]
    return options


def difference(case, dlc, folder):
    """How far dlc's output is from PyTorch's in f64."""
    import numpy

    module, x = prepare(case)
    command = [dlc, "run", case.file, "--model", case.model, "--output", f"{folder}/out"] + inputs(case, x, folder)
    command += ["--weights", weights_file(module, folder)] + bound(case)
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    [output] = Path(folder, "out").glob("*.npy")
    return distance(numpy.load(output), module, x)


def bound(case):
    return [word for bind in case.binds for word in ("--bind", bind)]


def timed(command):
    # Threads of OpenMP spin between a peer's calls, but not here, where they would take a core from all.
    environment = os.environ | {"OMP_WAIT_POLICY": "ACTIVE"}
    command = [str(c) for c in command]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def measure(name, case, args, folder):
    """Prints one line: dlc's time and error, then each peer's time with its ratio to dlc's."""
    error = "" if case.train else f"{difference(case, args.dlc, folder):.1e}"
    bench = [args.dlc, "bench", case.file, "--model", case.model, "--threads", args.threads, "--json"]
    bench += bound(case) + ["--train"] * case.train
    if not case.train or case.ids:
        bench += inputs(case, prepare(case)[1], folder)
    own, others = [], {peer: [] for peer in case.peers if side(peer).installed(peer)}
    for _ in range(args.rounds):
        own.append(json.loads(timed(bench))["median_ms"])
        for peer, found in others.items():
            call = [sys.executable, __file__, "--threads", args.threads, "--child", name, peer]
            found.append([float(word) for word in timed(call).split()])
    mine = statistics.median(own)
    print(f"{name:16} {error:>8} {mine:10.4f}  ", end="")
    for peer, found in others.items():
        ms = statistics.median(time for time, _ in found) * 1e3
        wrong = "" if found[0][1] <= 1e-4 else f", off by {found[0][1]:.0e}"
        print(f" {peer} {ms:.4f} ({ms / mine:.2f}{wrong})", end="")
    absent = [peer for peer in case.peers if peer not in others]
    print(f"   not installed: {', '.join(absent)}" if absent else "", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dlc", default=ROOT / "target/release/dlc")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)  # NumPy's
    known = cases() | unseen.cases(Case) | unseen_sequences.cases(Case) | steps.cases(Case)
    if args.child:
        return child(known[args.child[0]], args.child[1], args.threads)
    unknown = [name for name in args.cases if name not in known]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(known)}")
    import torch

    torch.set_num_threads(1)
    print(f"{'case':16} {'error':>8} {'dlc ms':>10}   peers: ms (ratio)")
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "peers.dl")
        own.write_text((ROOT / "examples/resnet.dl").read_text() + SOURCE)
        for name in args.cases or known:
            if known[name].file == own.name:
                known[name].file = own
            with tempfile.TemporaryDirectory() as case_folder:
                measure(name, known[name], args, case_folder)


if __name__ == "__main__":
    main()
