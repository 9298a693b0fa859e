#!/usr/bin/env python3
"""dlc beside what users would pick instead: the same functions, in turn, in one run.

    pip install numpy safetensors torch onnx onnxruntime
    cargo build --release && python benches/peers.py [--threads 1] [--rounds 3] [CASE ...]

Every measurement is a process of its own; dlc and its peers take turns, and medians over the rounds
are compared. A ratio above 1 says that dlc is faster. Outputs of inference are compared with those
of PyTorch in f64 on the same weights; a training step's are in tests/reference.rs.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = """
model Matmul(x: f32[N, N]) -> f32[N, N] { x |> linear(N, bias=no) }
model Mlp(x: f32[N, 784]) -> f32[N, 10] { x |> linear(512) |> relu |> linear(512) |> relu |> linear(10) }
model Softmax(x: f32[4096, 1024]) -> f32[4096, 1024] { x |> softmax[1] }
model LayerNorm(x: f32[4096, 1024]) -> f32[4096, 1024] { x |> layer_norm }
model Gelu(x: f32[16777216]) -> f32[16777216] { x |> gelu }
"""


class Case:
    """A function: a model of dlc, the same in PyTorch, and the shape of its input."""

    def __init__(self, file, model, module, shape, binds=(), train=False, name="x"):
        self.file, self.model, self.module, self.shape = file, model, module, shape
        self.binds, self.train, self.name = list(binds), train, name

    def peers(self):
        return ["torch"] if self.train else ["torch", "onnxruntime"]


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

    def resnet(counts, deep):
        stages, width = [("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False)), ("bn1", nn.BatchNorm2d(64)), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
        for k, count in enumerate(counts):
            c, blocks = 64 << k, []
            for b in range(count):
                blocks.append(Block(width, c, 2 if b == 0 and k > 0 else 1, deep))
                width = 4 * c if deep else c
            stages.append((f"layer{k + 1}", nn.Sequential(*blocks)))
        return Net(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ("fc", nn.Linear(width, 1000)))

    def lenet():
        return Net(
            ("conv1", nn.Conv2d(1, 6, 5, padding=2)), nn.ReLU(), nn.MaxPool2d(2),
            ("conv2", nn.Conv2d(6, 16, 5)), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            ("linear1", nn.Linear(400, 120)), nn.ReLU(), ("linear2", nn.Linear(120, 84)), nn.ReLU(), ("linear3", nn.Linear(84, 10)),
        )

    def mlp():
        return Net(("linear1", nn.Linear(784, 512)), nn.ReLU(), ("linear2", nn.Linear(512, 512)), nn.ReLU(), ("linear3", nn.Linear(512, 10)))

    own, examples = "peers.dl", ROOT / "examples"
    all = {f"matmul_{n}": Case(own, "Matmul", lambda n=n: Net(("linear1", nn.Linear(n, n, bias=False))), (n, n), [f"N={n}"]) for n in (256, 512, 1024, 2048)}
    for n in (1, 64):
        all[f"mlp_{n}"] = Case(own, "Mlp", mlp, (n, 784), [f"N={n}"])
    all["lenet_1"] = Case(examples / "lenet.dl", "LeNet", lenet, (1, 1, 28, 28), ["N=1"], name="image")
    all["lenet_step_64"] = Case(examples / "lenet.dl", "LeNet", lenet, (64, 1, 28, 28), train=True)
    all["resnet50_1"] = Case(examples / "resnet.dl", "ResNet50", lambda: resnet([3, 4, 6, 3], True), (1, 3, 224, 224), ["N=1"], name="image")
    all["softmax"] = Case(own, "Softmax", lambda: nn.Softmax(1), (4096, 1024))
    all["layer_norm"] = Case(own, "LayerNorm", lambda: Net(("layer_norm1", nn.LayerNorm(1024))), (4096, 1024))
    all["gelu"] = Case(own, "Gelu", nn.GELU, (16777216,))
    return all


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
    return module.train(case.train), torch.rand(case.shape)


def child(case, peer, threads):
    """Prints the median seconds of a call."""
    import torch

    torch.set_num_threads(threads)
    module, x = prepare(case)
    if case.train:
        label = torch.arange(case.shape[0]) % 10
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.1)

        def call():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), label).backward()
            optimizer.step()
    elif peer == "torch":
        module.requires_grad_(False)

        def call():
            with torch.inference_mode():
                module(x)
    else:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.onnx"
            torch.onnx.export(module, (x,), path, input_names=["x"], dynamo=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {"x": x.numpy()}
        call = lambda: session.run(None, feed)
    for budget in (0.3, 1.0):
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < budget:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    print(statistics.median(times))


def difference(case, dlc, folder):
    """The largest difference of dlc's output to PyTorch's in f64, by the largest value."""
    import numpy, torch
    from safetensors.torch import save_file

    module, x = prepare(case)
    weights = {k: v for k, v in module.state_dict().items() if v.dtype == torch.float32}
    save_file(weights or {"none": torch.zeros(1)}, f"{folder}/w.safetensors")
    numpy.save(f"{folder}/x.npy", x.numpy())
    command = [dlc, "run", case.file, "--model", case.model, "--input", f"{case.name}={folder}/x.npy", "--output", f"{folder}/out"]
    command += ["--weights", f"{folder}/w.safetensors"] if weights else []
    command += bound(case)
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    [output] = Path(folder, "out").glob("*.npy")
    with torch.no_grad():
        wanted = module.double()(x.double()).numpy()
    return abs(numpy.load(output) - wanted).max() / abs(wanted).max()


def bound(case):
    return [word for bind in case.binds for word in ("--bind", bind)]


def timed(command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dlc", default=ROOT / "target/release/dlc")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    known = cases()
    if args.child:
        return child(known[args.child[0]], args.child[1], args.threads)
    print(f"{'case':14} {'difference':>10} {'dlc ms':>10}   peers: ms (ratio)")
    for name in args.cases or known:
        case = known[name]
        with tempfile.TemporaryDirectory() as folder:
            if case.file == "peers.dl":
                case.file = f"{folder}/peers.dl"
                Path(case.file).write_text(SOURCE)
            error = "" if case.train else f"{difference(case, args.dlc, folder):.1e}"
            bench = [args.dlc, "bench", case.file, "--model", case.model, "--threads", args.threads, "--json"]
            bench += bound(case) + ["--train"] * case.train
            own, others = [], {peer: [] for peer in case.peers()}
            for _ in range(args.rounds):
                own.append(json.loads(timed(bench))["median_ms"])
                for peer in others:
                    call = [sys.executable, __file__, "--threads", args.threads, "--child", name, peer]
                    others[peer].append(float(timed(call)) * 1e3)
        mine = statistics.median(own)
        rest = [(peer, statistics.median(times)) for peer, times in others.items()]
        print(f"{name:14} {error:>10} {mine:10.4f}   " + ", ".join(f"{p} {t:.4f} ({t / mine:.2f})" for p, t in rest), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "ACTIVE")
    main()
