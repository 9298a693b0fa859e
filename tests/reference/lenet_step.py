"""Writes lenet_step.safetensors: one SGD step of LeNet-5 in PyTorch, in float64.

    pip install torch numpy safetensors; python tests/reference/lenet_step.py

Weights, images and labels follow a formula that the test repeats (tests/reference.rs), so that only
logits, loss and gradients are stored.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

SHAPES = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "linear1.weight": (120, 400),
    "linear1.bias": (120,),
    "linear2.weight": (84, 120),
    "linear2.bias": (84,),
    "linear3.weight": (10, 84),
    "linear3.bias": (10,),
}
BATCH = 8


def pattern(n, site):
    """Numbers in [-1, 1) from integer arithmetic alone: the same bits everywhere."""
    i = np.arange(n, dtype=np.uint64)
    mixed = (i * np.uint64(2654435761) + np.uint64(site) * np.uint64(40503) + np.uint64(12345)) % np.uint64(1 << 32)
    mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(1 << 32)
    mixed = mixed ^ (mixed >> np.uint64(13))
    return (mixed >> np.uint64(8)).astype(np.float64) / (1 << 23) - 1.0


def weights():
    out = {}
    for site, (name, shape) in enumerate(SHAPES.items()):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 16
        scale = np.float32(1.0) / np.float32(np.sqrt(fan_in))
        flat = pattern(int(np.prod(shape)), site).astype(np.float32) * scale
        out[name] = torch.tensor(flat.reshape(shape), dtype=torch.float64, requires_grad=True)
    return out


def main():
    w = weights()
    image = torch.tensor((pattern(BATCH * 784, 100).reshape(BATCH, 1, 28, 28) + 1) / 2)
    image = image.to(torch.float32).to(torch.float64)
    label = torch.arange(BATCH) * 3 % 10
    x = F.max_pool2d(F.relu(F.conv2d(image, w["conv1.weight"], w["conv1.bias"], padding=2)), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, w["conv2.weight"], w["conv2.bias"])), 2).flatten(1)
    x = F.relu(F.linear(x, w["linear1.weight"], w["linear1.bias"]))
    x = F.relu(F.linear(x, w["linear2.weight"], w["linear2.bias"]))
    logits = F.linear(x, w["linear3.weight"], w["linear3.bias"])
    loss = F.cross_entropy(logits, label)
    loss.backward()
    tensors = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy().reshape(1)}
    tensors |= {f"grad.{name}": t.grad.numpy() for name, t in w.items()}
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("lenet_step.safetensors"))


if __name__ == "__main__":
    main()
