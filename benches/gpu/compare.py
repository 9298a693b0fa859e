#!/usr/bin/env python3
"""dlc beside PyTorch, eager and compiled, on this machine's NVIDIA GPU: one table.

    cargo build --release --features cuda -p dlc && pip install torch
    python3 benches/gpu/compare.py [--seconds 1] [--dlc PATH] [CASE ...]

Times are the device's: of dlc the sum of its kernels' medians by CUDA events (`dlc bench --kernels`),
of PyTorch the median over calls by CUDA events. Inputs are random. A ratio above 1 says that dlc is
faster. `copy` is the share of the bandwidth that a copy of 1 GiB within the device reaches, for cases
that memory bounds. `--compile-only` compiles every case for sm_80 instead, which needs no GPU.

Exit code 3: there is no GPU that dlc can use, and why.
"""
import argparse, json, statistics, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
N = 4096  # of the matrix products

SOURCE = f"""
model Chain(x: f32[67108864]) -> f32[67108864] {{ gelu(x * 1.5 + 0.5) * sigmoid(x) }}
model Softmax(x: f32[16384, 4096]) -> f32[16384, 4096] {{ x |> softmax[1] }}
model LayerNorm(x: f32[16384, 4096]) -> f32[16384, 4096] {{ x |> layer_norm }}
model Matmul(x: f32[{N}, {N}]) -> f32[{N}, {N}] {{ x |> linear({N}, bias=no) }}

model Attention(q: f32[8, 2048, 16, 64], k: f32[8, 2048, 16, 64], v: f32[8, 2048, 16, 64])
  -> f32[8, 2048, 16, 64] {{ attention(q, k, v, causal = yes) }}

model Wide(x: f32[N, 4096]) -> f32[N, 4096] {{ x |> linear(4096) }}
train Wide {{
  data  tensors(x = f32[N, 4096], y = f32[N, 4096]) batch 16
  loss  mse(Wide(x), y)
  optim adam(lr = 1e-3)
}}

block Basic(C)(x: f32[N, K, H, W]) {{
  let stride = 1 if K == C else 2
  downsample = conv(C, 1x1, stride = stride, bias = no) |> batch_norm
  y = x |> conv(C, 3x3, stride = stride, pad = 1, bias = no) |> batch_norm |> relu
        |> conv(C, 3x3, pad = 1, bias = no)                  |> batch_norm
  skip = x if K == C else x |> downsample
  relu(y + skip)
}}
model ResNet18(image: f32[N, 3, 32, 32]) -> f32[N, 10] {{
  image |> conv(64, 3x3, pad = 1, bias = no) |> batch_norm |> relu
    |> layer1: repeat 2 {{ Basic(64) }} |> layer2: repeat 2 {{ Basic(128) }}
    |> layer3: repeat 2 {{ Basic(256) }} |> layer4: repeat 2 {{ Basic(512) }}
    |> global_avg_pool |> linear(10)
}}
train ResNet18 {{
  data  tensors(image = f32[N, 3, 32, 32], label = i32[N]) batch 256
  loss  cross_entropy(ResNet18(image), label)
  optim adam(lr = 1e-3)
}}
"""

# ResNet-50's convolutions for 32 pictures: channels in and out, extent in, filter, stride.
CONVOLUTIONS = [
    (3, 64, 224, 7, 2), (64, 64, 56, 1, 1), (64, 64, 56, 3, 1), (64, 256, 56, 1, 1), (128, 128, 28, 3, 1),
    (512, 128, 28, 1, 1), (256, 256, 14, 3, 1), (1024, 256, 14, 1, 1), (512, 512, 7, 3, 1), (2048, 512, 7, 1, 1),
]
BATCH = 32


def conv_model(i, o, extent, filter, stride):
    name, out = f"Conv{i}x{o}x{extent}f{filter}", extent // stride
    return name, (f"model {name}(x: f32[{BATCH}, {i}, {extent}, {extent}]) -> f32[{BATCH}, {o}, {out}, {out}] "
                  f"{{ x |> conv({o}, {filter}x{filter}, stride={stride}, pad={filter // 2}, bias=no) }}\n")


class Case:
    """What to time: a model of dlc, in some math; PyTorch's function is made by `torch` when there is
    one. `kernel` names the one kernel that counts; else all do."""

    def __init__(self, name, model, torch, math="f32", train=False, kernel=None, copies=False):
        self.name, self.model, self.torch, self.math = name, model, torch, math
        self.train, self.kernel, self.copies = train, kernel, copies

    def options(self):
        return ["--model", self.model, "--math", self.math] + (["--train"] if self.train else [])


def cases():
    found = [
        Case("elementwise chain", "Chain", chain, copies=True),
        Case("adam update", "Wide", adam, train=True, kernel="update", copies=True),
        Case("softmax", "Softmax", softmax, copies=True),
        Case("layer norm", "LayerNorm", layer_norm, copies=True),
    ]
    for math in ["f32", "3xtf32", "tf32", "f16", "bf16"]:
        found.append(Case(f"matmul {N} {math}", "Matmul", lambda math=math: matmul(math), math))
    for math in ["f32", "3xtf32", "tf32", "f16", "bf16"]:
        found.append(Case(f"causal attention {math}", "Attention", lambda math=math: attention(math), math))
    for shape in CONVOLUTIONS:
        for math in ["f32", "tf32"]:
            make = lambda shape=shape, math=math: convolution(shape, math)
            found.append(Case(f"{conv_model(*shape)[0].lower()} {math}", conv_model(*shape)[0], make, math))
    found.append(Case("resnet18 training step", "ResNet18", resnet18, train=True))
    return found


# PyTorch's side: each gives a function to call, and whether it may use tf32.

def random(*shape, dtype=None):
    import torch
    return torch.randn(*shape, device="cuda", dtype=dtype)


def allow_tf32(allowed):
    import torch
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def chain():
    import torch
    x = random(67108864)
    return lambda: torch.nn.functional.gelu(x * 1.5 + 0.5) * torch.sigmoid(x)


def softmax():
    x = random(16384, 4096)
    return lambda: x.softmax(1)


def layer_norm():
    import torch
    x, norm = random(16384, 4096), torch.nn.LayerNorm(4096, device="cuda").requires_grad_(False)
    return lambda: norm(x)


def adam():
    import torch
    layer = torch.nn.Linear(4096, 4096, device="cuda")
    for p in layer.parameters():
        p.grad = torch.randn_like(p)
    return torch.optim.Adam(layer.parameters(), lr=1e-3, fused=True).step


def matmul(math):
    import torch
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(math, torch.float32)
    allow_tf32(math == "tf32")
    x, w = random(N, N, dtype=dtype), random(N, N, dtype=dtype)
    return lambda: x @ w.T


def attention(math):
    import torch
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(math, torch.float32)
    allow_tf32(math == "tf32")
    q, k, v = (random(8, 2048, 16, 64, dtype=dtype).transpose(1, 2) for _ in range(3))
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def convolution(shape, math):
    import torch
    i, o, extent, filter, stride = shape
    allow_tf32(math == "tf32")
    torch.backends.cudnn.benchmark = True
    x, w = random(BATCH, i, extent, extent), random(o, i, filter, filter)
    return lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=filter // 2)


def resnet18():
    import torch
    from torch import nn

    class Basic(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            s = 1 if i == o else 2
            conv = lambda i, s: nn.Conv2d(i, o, 3, s, 1, bias=False)
            self.body = nn.Sequential(conv(i, s), nn.BatchNorm2d(o), nn.ReLU(), conv(o, 1), nn.BatchNorm2d(o))
            self.skip = nn.Identity() if s == 1 else nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            return torch.relu(self.body(x) + self.skip(x))

    allow_tf32(False)
    layers, width = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()], 64
    for o in [64, 128, 256, 512]:
        layers += [Basic(width, o), Basic(o, o)]
        width = o
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).cuda()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    image, label = random(256, 3, 32, 32), torch.randint(10, (256,), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(image), label).backward()
        optimizer.step()

    return step


def torch_ms(call, seconds):
    """The median milliseconds of a call, by events."""
    import torch, time
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times, end = [], time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < end:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        call()
        events[1].record()
        torch.cuda.synchronize()
        times.append(events[0].elapsed_time(events[1]))
    return statistics.median(times)


def dlc_json(dlc, *args):
    done = subprocess.run([dlc, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"dlc {' '.join(args)}\n{done.stderr}")
    return json.loads(done.stdout)


def dlc_times(dlc, file, case, seconds):
    """Milliseconds, operations and bytes of the kernels that count."""
    options = ["--device", "cuda", "--kernels", "--json", "--seconds", str(seconds)]
    kernels = dlc_json(dlc, "bench", str(file), *case.options(), *options)["kernel_times"]
    counted = [k for k in kernels if case.kernel in (None, k["name"])]
    return [sum(k[what] for k in counted) for what in ("median_ms", "flops", "bytes")]


def no_device(dlc):
    """Why dlc finds no GPU, or None."""
    targets = {t["name"]: t for t in dlc_json(dlc, "targets", "--json")}
    return targets["sm_80"].get("refusal")


def compare(dlc, file, chosen, seconds):
    try:
        import torch
        torch.manual_seed(0)
    except ImportError:
        torch = None
        print("PyTorch is not installed: dlc alone is measured", file=sys.stderr)
    copy = None
    if torch:
        source, target = random(1 << 28), random(1 << 28)
        copy = 2 * source.nbytes / torch_ms(lambda: target.copy_(source), seconds) / 1e6
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, copy {copy:.0f} GB/s")
        del source, target
    heads = ["dlc ms", "eager ms", "compiled ms", "eager/dlc", "compiled/dlc", "TFLOP/s", "GB/s", "copy"]
    print(f"{'case':28}" + "".join(f"{h:>14}" for h in heads))
    for case in chosen:
        ms, flops, bytes = dlc_times(dlc, file, case, seconds)
        eager = compiled = None
        if torch:
            eager = torch_ms(case.torch(), seconds)
            compiled = torch_ms(torch.compile(case.torch(), mode="max-autotune-no-cudagraphs"), seconds)
            torch.cuda.empty_cache()
        rate = bytes / ms / 1e6
        share = rate / copy if copy and case.copies else None
        ratio = lambda other: other / ms if other else None
        row = [(ms, ".4f"), (eager, ".4f"), (compiled, ".4f"), (ratio(eager), ".2f"), (ratio(compiled), ".2f"),
               (flops / ms / 1e9, ".1f"), (rate, ".0f"), (share, ".2f")]
        cells = [format(value, form) if value is not None else "-" for value, form in row]
        print(f"{case.name:28}" + "".join(f"{c:>14}" for c in cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="cases whose names begin so; all if none")
    parser.add_argument("--dlc", default=str(ROOT / "target/release/dlc"))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--compile-only", action="store_true", help="compile every case for sm_80 instead")
    args = parser.parse_args()
    if not Path(args.dlc).exists():
        sys.exit(f"{args.dlc} is missing: cargo build --release --features cuda -p dlc")
    chosen = [c for c in cases() if not args.cases or any(c.name.startswith(name) for name in args.cases)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gpu.dl"
        file.write_text(SOURCE + "".join(conv_model(*shape)[1] for shape in CONVOLUTIONS))
        if args.compile_only:
            for case in chosen:
                report = dlc_json(args.dlc, "compile", str(file), *case.options(), "--target", "sm_80", "--json")
                print(f"{case.name:28}{report['flops']:>16} operations{report['bytes']:>14} bytes")
            return
        reason = no_device(args.dlc)
        if reason:
            print(f"no device: {reason}", file=sys.stderr)
            sys.exit(3)
        compare(args.dlc, file, chosen, args.seconds)


if __name__ == "__main__":
    main()
