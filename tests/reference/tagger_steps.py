"""Writes tagger_steps.safetensors: three steps of a small Transformer in PyTorch, in float64.

    pip install torch numpy safetensors; python tests/reference/tagger_steps.py

Parameters and data follow formulas that the test repeats (tests/reference.rs), so that only the
losses of all batches and the parameters after the steps are stored. Each step has two batches; a
large eps keeps Adam from making much of gradients that are 0 but for rounding (the keys' biases).
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

from lenet_step import pattern

BATCH, T, V, D, STEPS, PARTS = 2, 5, 7, 8, 3, 2


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 2, 12, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(V, D)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(D))
        self.head = nn.Linear(D, V)

    def forward(self, ids, padded):
        t = torch.arange(T, dtype=torch.float64)[:, None]
        rate = torch.exp(torch.arange(0, D, 2, dtype=torch.float64) * (-math.log(10000.0) / D))
        waves = torch.stack([torch.sin(t * rate), torch.cos(t * rate)], -1).reshape(T, D)
        return self.head(self.encoder(self.embed(ids) + waves, src_key_padding_mask=padded))


def fill(model):
    for site, (name, p) in enumerate(sorted(model.named_parameters())):
        fan_in = int(np.prod(p.shape[1:])) if p.dim() > 1 else 16
        scale = np.float32(1.0) / np.float32(np.sqrt(fan_in))
        flat = pattern(p.numel(), site).astype(np.float32) * scale
        if "norm" in name and name.endswith("weight"):
            flat = flat + np.float32(1.0)
        p.data = torch.tensor(flat.reshape(p.shape), dtype=torch.float64)


def batch(index):
    k = torch.arange(BATCH * T).reshape(BATCH, T) + index * BATCH * T
    length = 1 + (3 * (torch.arange(BATCH) + index * BATCH) + 1) % T
    padded = torch.arange(T)[None] >= length[:, None]
    return (3 * k * k + 5 * k + 1) % V, (k * k + 3 * k + 2) % V, padded


def main():
    model = Tagger().double()
    fill(model)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, eps=1e-3)
    losses = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * min((step + 1) / 2, math.sqrt(2 / (step + 1)))
        optimizer.zero_grad()
        for part in range(PARTS):
            ids, target, padded = batch(step * PARTS + part)
            target = target.masked_fill(padded, -100)
            logits = model(ids, padded).reshape(-1, V)
            loss = F.cross_entropy(logits, target.reshape(-1), label_smoothing=0.1)
            (loss / PARTS).backward()
            losses.append(loss.item())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        print(f"norm {norm:.3f} before clipping")
        optimizer.step()
    tensors = {"loss": np.array(losses)}
    tensors |= {name: p.detach().numpy() for name, p in model.named_parameters()}
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("tagger_steps.safetensors"))


if __name__ == "__main__":
    main()
