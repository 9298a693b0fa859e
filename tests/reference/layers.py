"""Writes layers.safetensors: PyTorch's recurrent layers, attention, Transformers and norms, in float64; what
PyTorch has no module for is written with its functions.

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


class Gru(nn.Module):
    """That of Cho et al.: the reset gate acts on the state before the product."""

    def __init__(self):
        super().__init__()
        shapes = {"weight_ih_l0": (3 * H, D), "weight_hh_l0": (3 * H, H), "bias_ih_l0": (3 * H,), "bias_hh_l0": (3 * H,)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, x):
        h, steps = x.new_zeros(N, H), []
        for t in range(T):
            a = x[:, t] @ self.weight_ih_l0.T + self.bias_ih_l0 + self.bias_hh_l0
            gates = torch.sigmoid(a[:, :2 * H] + h @ self.weight_hh_l0[:2 * H].T)
            r, z = gates.chunk(2, dim=-1)
            n = torch.tanh(a[:, 2 * H:] + (r * h) @ self.weight_hh_l0[2 * H:].T)
            h = (1 - z) * n + z * h
            steps.append(h)
        return torch.stack(steps, dim=1)


def rotated(x):
    """Rotary positions as Llama has them, of [N, T, heads, C]."""
    width = x.shape[-1]
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angles = (torch.arange(x.shape[1], dtype=x.dtype)[:, None] * rates).repeat(1, 2)[:, None]
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()


class GroupedAttention(nn.Module):
    """4 heads of queries, 2 of keys and values."""

    def __init__(self, width):
        super().__init__()
        self.q_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(width, width // 2, bias=False) for _ in range(2))

    def forward(self, x):
        q = rotated(self.q_proj(x).unflatten(-1, (4, -1))).transpose(1, 2)
        k = rotated(self.k_proj(x).unflatten(-1, (2, -1))).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (2, -1)).transpose(1, 2)
        k, v = (heads.repeat_interleave(2, dim=1) for heads in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class SwiGlu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Llama(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))
        self.self_attn, self.mlp = GroupedAttention(width), SwiGlu(width, 5)

    def forward(self, x):
        h = x + self.self_attn(self.input_layernorm(x))
        return h + self.mlp(self.post_attention_layernorm(h))


def alibi(m, x):
    slopes = torch.tensor([2.0 ** -4, 2.0 ** -8], dtype=x.dtype)
    distance = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    bias = (-slopes[:, None, None] * distance).masked_fill(AHEAD, -torch.inf)
    return m(x, x, x, attn_mask=bias.repeat(N, 1, 1))


def weighed(scores, h):
    """The answer from all steps, and their weights."""
    weights = scores.masked_fill(attends(LENGTHS, T), -torch.inf).softmax(-1)
    return (weights[:, None] @ h)[:, 0], weights


class AdditiveAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(U, 4), nn.Linear(D, 4, bias=False)
        self.weight = nn.Parameter(torch.zeros(4))

    def forward(self, query, h):
        return weighed(torch.tanh(self.linear1(query)[:, None] + self.linear2(h)) @ self.weight, h)


def transformer():
    module = nn.Transformer(D, 2, 2, 2, 8, dropout=0.0, batch_first=True)
    padding = attends(SOURCE_LENGTHS, U)
    call = lambda m, source, x: (m(
        source, x, tgt_mask=AHEAD, src_key_padding_mask=padding, memory_key_padding_mask=padding),)
    return module, call, [(N, U, D), (N, T, D)]


def transformer_decoder():
    layer, call, shapes = decoder(True)
    return nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(D)), call, shapes


def one(module, *shape):
    return module, lambda m, x: (m(x),), [shape]


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
    "gru_reset_before": one(Gru(), N, T, D),
    "rotary": (nn.Identity(), lambda m, x: (rotated(x),), [(N, T, 2, 4)]),
    "alibi_attention": attention(alibi, (N, T, D)),
    "grouped_attention": one(GroupedAttention(8), N, T, 8),
    "swiglu": one(SwiGlu(D, 5), N, T, D),
    "llama_block": one(Llama(8), N, T, 8),
    "dot_attention": (
        nn.Identity(), lambda m, query, h: weighed((h @ query[:, :, None])[:, :, 0], h), [(N, D), (N, T, D)]),
    "additive_attention": (AdditiveAttention(), lambda m, query, h: m(query, h), [(N, U), (N, T, D)]),
    "transformer": transformer(),
    "transformer_decoder": transformer_decoder(),
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
            if "layers." not in name:
                tensors[f"{case}.grad.{name}"] = p.grad.numpy()
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, pathlib.Path(__file__).with_name("layers.safetensors"))


if __name__ == "__main__":
    main()
