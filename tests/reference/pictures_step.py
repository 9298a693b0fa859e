"""Writes pictures_step.safetensors: loss and gradients of a net of pictures in PyTorch, in float64, while
batch norms are trained, with convolutions in groups and pooling.

    pip install torch numpy safetensors; python tests/reference/pictures_step.py
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from lenet_step import pattern

BATCH = 6
SHAPES = {
    "conv1.weight": (24, 3, 3, 3),
    "conv2.weight": (24, 8, 3, 3),
    "conv3.weight": (32, 24, 3, 3),
    "batch_norm1.weight": (24,),
    "batch_norm1.bias": (24,),
    "batch_norm2.weight": (24,),
    "batch_norm2.bias": (24,),
    "batch_norm3.weight": (32,),
    "batch_norm3.bias": (32,),
    "linear1.weight": (10, 512),
    "linear1.bias": (10,),
}


def weight(site, shape):
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 16
    scale = np.float32(1.0) / np.float32(np.sqrt(fan_in))
    flat = pattern(int(np.prod(shape)), site).astype(np.float32) * scale
    return torch.tensor(flat.reshape(shape), dtype=torch.float64, requires_grad=True)


def main():
    w = {name: weight(site, shape) for site, (name, shape) in enumerate(SHAPES.items())}
    image = torch.tensor((pattern(BATCH * 768, 100).reshape(BATCH, 3, 16, 16) + 1) / 2)
    x = image.to(torch.float32).to(torch.float64)
    for k, groups in (1, 1), (2, 3), (3, 1):
        x = F.conv2d(x, w[f"conv{k}.weight"], padding=1, groups=groups)
        scale, shift = w[f"batch_norm{k}.weight"], w[f"batch_norm{k}.bias"]
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
        x = x if k == 2 else F.max_pool2d(x, 2)
    logits = F.linear(x.flatten(1), w["linear1.weight"], w["linear1.bias"])
    loss = F.cross_entropy(logits, torch.arange(BATCH) * 3 % 10)
    loss.backward()
    tensors = {"loss": loss.detach().numpy().reshape(1)}
    tensors |= {f"grad.{name}": t.grad.numpy() for name, t in w.items() if name != "linear1.weight"}
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("pictures_step.safetensors"))


if __name__ == "__main__":
    main()
