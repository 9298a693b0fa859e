"""Writes layers.safetensors: PyTorch's recurrent layers, attention, Transformer layers and norms, in float64.

    pip install torch numpy safetensors; python tests/reference/layers.py

For each case the outputs, and the gradients of sum(output * weight) by all inputs and parameters. Inputs,
weights and parameters follow a formula that the test repeats (tests/reference/layers.rs), so that they are
not stored.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from lenet_step import pattern

N, T, U, D, H = 3, 7, 5, 6, 5
LENGTHS = torch.tensor([7, 1, 4])
SOURCE_LENGTHS = torch.tensor([2, 5, 3])


def tensor(site, *shape):
    flat = pattern(int(np.prod(shape)), site).astype(np.float32)
    return torch.tensor(flat.reshape(shape), dtype=torch.float64, requires_grad=True)


def fill(module):
    """Parameters in the order of their names."""
    for site, (_, p) in enumerate(sorted(module.named_parameters())):
        scale = np.float32(1.0) / np.float32(np.sqrt(p.shape[-1] if p.dim() > 1 else 4))
        values = tensor(200 + site, *p.shape).detach().numpy().astype(np.float32) * scale
        p.data = torch.tensor(values, dtype=torch.float64)


def packed(module, x, lengths, *states):
    sequences = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = module(sequences, *states)
    y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
    return (y, *(last if isinstance(last, tuple) else (last,)))


def recurrent(kind, steps=T, lengths=None, states=0, **options):
    passes = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)

    def call(module, x, *first):
        first = () if not first else (first if kind is nn.LSTM else first[0],)
        if lengths is not None:
            return packed(module, x, lengths, *first)
        y, last = module(x, *first)
        return (y, *last) if kind is nn.LSTM else (y, last)

    widths = [options.get("proj_size", H), H][:states]
    shapes = [(N, steps, D)] + [(passes, N, width) for width in widths]
    return kind(D, H, batch_first=True, **options), call, shapes


def attends(lengths, size):
    """True at what is left out."""
    return torch.arange(size) >= lengths[:, None]


AHEAD = torch.ones(T, T, dtype=torch.bool).triu(1)


def attention(call, *shapes):
    return nn.MultiheadAttention(D, 2, batch_first=True), lambda m, *x: (call(m, *x)[0],), shapes


class RelativeAttention(nn.Module):
    """With a learned bias by distance, as T5 has it."""

    def __init__(self, far, causal):
        super().__init__()
        self.attn = nn.MultiheadAttention(D, 2, batch_first=True)
        self.relative_bias1, self.far, self.causal = nn.Embedding(8, 2), far, causal

    def buckets(self):
        behind = torch.arange(T)[:, None] - torch.arange(T)
        count = 8 if self.causal else 4
        distance = behind.clamp(min=0) if self.causal else behind.abs()
        narrow = count // 2
        octaves = torch.log(distance.double() / narrow) / np.log(self.far / narrow)
        wide = (narrow + (octaves * (count - narrow)).clamp(min=0).long()).clamp(max=count - 1)
        near = torch.where(distance < narrow, distance, wide)
        return near if self.causal else near + count * (behind < 0)

    def forward(self, x):
        bias = self.relative_bias1(self.buckets()).permute(2, 0, 1).repeat(N, 1, 1)
        bias = bias.masked_fill(AHEAD, -torch.inf) if self.causal else bias
        return self.attn(x, x, x, attn_mask=bias)[0]


def relative(far, causal):
    return RelativeAttention(far, causal), lambda m, x: (m(x),), [(N, T, D)]


def encoder(pre, activation):
    layer = nn.TransformerEncoderLayer(
        D, 2, 8, dropout=0.0, activation=activation, batch_first=True, norm_first=pre)
    padding = attends(LENGTHS, T)
    return layer, lambda m, x: (m(x, src_key_padding_mask=padding),), [(N, T, D)]


def decoder(pre):
    layer = nn.TransformerDecoderLayer(D, 2, 8, dropout=0.0, batch_first=True, norm_first=pre)
    padding = attends(SOURCE_LENGTHS, U)
    call = lambda m, x, memory: (m(x, memory, tgt_mask=AHEAD, memory_key_padding_mask=padding),)
    return layer, call, [(N, T, D), (N, U, D)]


CASES = {
    "rnn_tanh": recurrent(nn.RNN, states=1),
    "rnn_relu": recurrent(nn.RNN, nonlinearity="relu"),
    "lstm": recurrent(nn.LSTM),
    "lstm_states": recurrent(nn.LSTM, states=2),
    "lstm_one_step": recurrent(nn.LSTM, steps=1),
    "lstm_stacked": recurrent(nn.LSTM, lengths=LENGTHS, states=2, num_layers=2, bidirectional=True),
    "gru": recurrent(nn.GRU),
    "gru_stacked": recurrent(nn.GRU, lengths=LENGTHS, states=1, num_layers=2, bidirectional=True),
    "rnn_no_bias": recurrent(nn.RNN, bias=False, num_layers=2),
    "lstm_no_bias": recurrent(nn.LSTM, bias=False),
    "gru_no_bias": recurrent(nn.GRU, bias=False, bidirectional=True),
    "lstm_projected": recurrent(nn.LSTM, states=2, proj_size=2),
    "lstm_projected_stacked": recurrent(
        nn.LSTM, lengths=LENGTHS, states=2, proj_size=3, num_layers=2, bidirectional=True),
    "self_attention": attention(lambda m, x: m(x, x, x), (N, T, D)),
    "causal_attention": attention(lambda m, x: m(x, x, x, attn_mask=AHEAD), (N, T, D)),
    "padded_attention": attention(
        lambda m, x, memory: m(x, memory, memory, key_padding_mask=attends(SOURCE_LENGTHS, U)), (N, T, D), (N, U, D)),
    "relative_attention": relative(5, False),
    "causal_relative_attention": relative(6, True),
    "encoder_post": encoder(False, "relu"),
    "encoder_pre": encoder(True, "gelu"),
    "decoder_post": decoder(False),
    "decoder_pre": decoder(True),
    "layer_norm": (nn.LayerNorm(D), lambda m, x: (m(x),), [(N, T, D)]),
    "rms_norm": (nn.RMSNorm(D, eps=1e-6), lambda m, x: (m(x),), [(N, T, D)]),
}


def main():
    tensors = {}
    for case, (module, call, shapes) in CASES.items():
        module = module.double()
        fill(module)
        inputs = [tensor(100 + k, *shape) for k, shape in enumerate(shapes)]
        outputs = call(module, *inputs)
        loss = sum((y * tensor(300 + k, *y.shape).detach()).sum() for k, y in enumerate(outputs))
        loss.backward()
        for k, y in enumerate(outputs):
            tensors[f"{case}.{k}"] = y.detach().numpy()
        for k, x in enumerate(inputs):
            tensors[f"{case}.grad.x{k}"] = x.grad.numpy()
        for name, p in module.named_parameters():
            tensors[f"{case}.grad.{name}"] = p.grad.numpy()
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("layers.safetensors"))


if __name__ == "__main__":
    main()
