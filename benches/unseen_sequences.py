"""Models of sequences that nothing in dlc was tuned for, in PyTorch: odd widths, lengths, heads.
`unseen_sequences.dl` has the same in dlc's language; `peers.py` measures them."""
from pathlib import Path

from unseen import adam

SOURCE = Path(__file__).with_suffix(".dl")
LENGTHS = [50, 3, 17, 41, 50, 28, 9, 33, 12, 46, 21, 37]
POSITION = 199  # of one more token
SOURCE_IDS = 38


def cases(Case):
    """By name: every model, some at several batches, and training steps."""
    all, made = {}, models()

    def add(name, model, *shape, peers=("torch", "onnxruntime", "openvino"), **more):
        given = "x" if more.get("ids") is None else "ids"
        all[name] = Case(SOURCE, model, made[model], shape, peers=list(peers), name=given, **more)

    for n in (1, 20):
        add(f"gru_{n}", "Gru", n, 37, 200)
        add(f"rnn_{n}", "Elman", n, 60, 90)
        add(f"ptb_{n}", "Ptb", n, 35, 650)
        add(f"sensor_{n}", "Sensor", n, 12, 300)
    add("projected_8", "Projected", 8, 40, 150, peers=["torch"])
    add("lengths_12", "Lengths", 12, 50, 100, peers=["torch"], given={"lengths": LENGTHS})
    add("judged_6", "Judged", 6, 45, 70)
    add("cross_4", "Cross", 4, 45, 320)
    add("patches_1", "Patches", 1, 3, 196, 196)
    add("llama_1", "Llama", 1, 300, 384)
    add("distances_2", "Distances", 2, 150, 256)
    add("falling_1", "Falling", 1, 270, 288)
    add("window_1", "Window", 1, 600, 256)
    add("bag_32", "Bag", 32, 60, ids=20000)
    for name, model, rows in (("batch_8", "Batch", 8), ("beam_5", "Beam", 5)):
        add(name, model, rows, 1, ids=3000, given={"at": POSITION if model == "Batch" else 60})
    steps = {"gru_chars": ("GruChars", (32, 80), 90), "tagger": ("Tagger", (16, 50), 17), "patches": ("Patches", (8, 3, 196, 196), None)}
    steps |= {"small": ("Small", (6, 200), 500), "translate": ("Translate", (16, 30), 10000)}
    for name, (model, shape, ids) in steps.items():
        add(f"{name}_step", model, *shape, peers=["torch"], optimizer=adam, ids=ids)
    return all


def models():
    """The modules; made here, so that nothing needs PyTorch before it is asked for."""
    import torch
    from torch import nn

    F = nn.functional

    class Recurrent(nn.Module):
        """One recurrent layer or several, of the sequence; then scores, if they are asked for."""

        def __init__(self, name, layer, scores=None, last=False, first=None):
            super().__init__()
            setattr(self, name, layer)
            self.name, self.last, self.linear1 = name, last, scores
            self.embedding1 = first

        def forward(self, x):
            x = x if self.embedding1 is None else self.embedding1(x)
            h = getattr(self, self.name)(x)[0]
            h = h[:, -1] if self.last else h
            return h if self.linear1 is None else self.linear1(h)

    class Lengths(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm1 = nn.LSTM(100, 150, 2, batch_first=True, bidirectional=True)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), True, False)
            return nn.utils.rnn.pad_packed_sequence(self.lstm1(packed)[0], True, total_length=50)[0]

    class Judged(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm1 = nn.LSTM(70, 130, batch_first=True)
            self.additive_attention1 = nn.Module()
            self.additive_attention1.linear1 = nn.Linear(130, 60)
            self.additive_attention1.linear2 = nn.Linear(130, 60, bias=False)
            self.additive_attention1.weight = nn.Parameter(torch.randn(60) / 8)
            self.linear1 = nn.Linear(130, 12)

        def forward(self, x):
            h, judge = self.lstm1(x)[0], self.additive_attention1
            e = torch.tanh(judge.linear1(h[:, -1:]) + judge.linear2(h))
            p = (e @ judge.weight).softmax(-1)
            return self.linear1((p.unsqueeze(1) @ h).squeeze(1))

    class Sensor(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1d1, self.conv1d2 = nn.Conv1d(12, 48, 7, 2, 3), nn.Conv1d(48, 72, 5, 2, 2)
            self.gru1, self.linear1 = nn.GRU(72, 110, batch_first=True), nn.Linear(110, 9)

        def forward(self, x):
            y = F.relu(self.conv1d2(F.relu(self.conv1d1(x))))
            return self.linear1(self.gru1(y.transpose(1, 2))[0][:, -1])

    def heads(x, count):
        return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)

    class Attention(nn.Module):
        """With dlc's names; `bias` is added to the scores, `seen` are keys and values before."""

        def __init__(self, D, A, bias=None, causal=False, seen=None):
            super().__init__()
            self.A, self.bias, self.causal = A, bias, causal
            self.in_proj_weight = nn.Parameter(torch.randn(3 * D, D) / D**0.5)
            self.in_proj_bias = nn.Parameter(0.1 * torch.randn(3 * D))
            self.out_proj = nn.Linear(D, D)
            if seen:
                for rows in ("keys", "values"):
                    self.register_buffer(rows, torch.zeros(seen[0], A, seen[1], D // A), persistent=False)

        def forward(self, x):
            q, k, v = (heads(y, self.A) for y in F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1))
            if hasattr(self, "keys"):
                k, v = torch.cat([self.keys, k], 2), torch.cat([self.values, v], 2)
            bias = self.bias() if callable(self.bias) else self.bias
            bias = bias if bias is None or bias.dtype == torch.bool else bias.to(q.dtype)
            found = F.scaled_dot_product_attention(q, k, v, bias, is_causal=self.causal)
            return self.out_proj(found.transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        """An encoder layer with dlc's names."""

        def __init__(self, D, A, Fd, pre=False, activation=F.relu, **attention):
            super().__init__()
            self.self_attn = Attention(D, A, **attention)
            self.linear1, self.linear2 = nn.Linear(D, Fd), nn.Linear(Fd, D)
            self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
            self.pre, self.activation = pre, activation

        def forward(self, x):
            if self.pre:
                h = x + self.self_attn(self.norm1(x))
                return h + self.linear2(self.activation(self.linear1(self.norm2(h))))
            h = self.norm1(x + self.self_attn(x))
            return self.norm2(h + self.linear2(self.activation(self.linear1(h))))

    class Stack(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x):
            return self.layers(x)

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder_layer1 = nn.TransformerEncoderLayer(320, 5, 1280, 0.0, batch_first=True)
            self.decoder_layer1 = nn.TransformerDecoderLayer(320, 5, 1280, 0.0, batch_first=True)

        def forward(self, x):
            ahead = torch.full((45, 45), float("-inf"), dtype=x.dtype).triu(1)
            return self.decoder_layer1(x, self.encoder_layer1(x[:, 5:40]), ahead)

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.first = nn.Conv2d(3, 192, 14, 14), nn.Parameter(0.02 * torch.randn(1, 1, 192))
            self.learned_positions1 = nn.Embedding(197, 192)
            self.layers = nn.Sequential(*[Layer(192, 3, 768, True, F.gelu) for _ in range(4)])
            self.layer_norm1, self.linear1 = nn.LayerNorm(192), nn.Linear(192, 50)

        def forward(self, x):
            tokens = self.conv1(x).flatten(2).transpose(1, 2)
            h = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1) + self.learned_positions1.weight
            return self.linear1(self.layer_norm1(self.layers(h))[:, 0])

    class Grouped(nn.Module):
        """Attention with rotations, in which heads share keys and values."""

        def __init__(self, D, A, G, rate=0.0):
            super().__init__()
            self.A, self.G, self.rate, C = A, G, rate, D // A
            self.q_proj, self.o_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
            self.k_proj, self.v_proj = nn.Linear(D, G * C, bias=False), nn.Linear(D, G * C, bias=False)
            self.angles = 10000.0 ** (-torch.arange(C // 2) * 2 / C)

        def turned(self, x):
            angle = torch.outer(torch.arange(x.shape[2], dtype=torch.float32), self.angles)
            cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        def forward(self, x):
            q, k = self.turned(heads(self.q_proj(x), self.A)), self.turned(heads(self.k_proj(x), self.G))
            v, many = heads(self.v_proj(x), self.G), self.A // self.G
            k, v = k.repeat_interleave(many, 1), v.repeat_interleave(many, 1)
            rate = self.rate if self.training else 0.0
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
            return self.o_proj(found.transpose(1, 2).flatten(2))

    class Norm(nn.Module):
        """nn.RMSNorm, which the exporter to ONNX does not know."""

        def __init__(self, D):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(D))

        def forward(self, x):
            return x * ((x * x).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight

    class Gated(nn.Module):
        def __init__(self, D, Fd):
            super().__init__()
            self.gate_proj, self.up_proj = nn.Linear(D, Fd, bias=False), nn.Linear(D, Fd, bias=False)
            self.down_proj = nn.Linear(Fd, D, bias=False)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class LlamaLayer(nn.Module):
        def __init__(self, D, A, G, Fd, rate=0.0):
            super().__init__()
            self.input_layernorm, self.self_attn = Norm(D), Grouped(D, A, G, rate)
            self.post_attention_layernorm, self.mlp, self.rate = Norm(D), Gated(D, Fd), rate

        def forward(self, x):
            drop = lambda y: F.dropout(y, self.rate, self.training)
            h = x + drop(self.self_attn(self.input_layernorm(x)))
            return h + drop(self.mlp(self.post_attention_layernorm(h)))

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(500, 320)
            self.layers = nn.Sequential(*[LlamaLayer(320, 10, 2, 860, 0.1) for _ in range(3)])
            self.norm, self.head = Norm(320), nn.Linear(320, 500, bias=False)

        def forward(self, ids):
            return self.head(self.norm(self.layers(self.table(ids))))

    class Distances(nn.Module):
        def __init__(self):
            super().__init__()
            self.relative_bias1 = nn.Embedding(32, 4)
            layers = [Layer(256, 4, 680, bias=self.far) for _ in range(2)]
            self.layers = nn.Sequential(*layers)

        def far(self):
            behind = torch.arange(150)[:, None] - torch.arange(150)[None, :]
            distance = behind.abs()
            wide = 8 + ((distance.clamp(min=8) / 8).log() / torch.tensor(16.0).log() * 8 + 1e-5).long()
            near = torch.where(distance < 8, distance, wide.clamp(max=15))
            return self.relative_bias1(near + 16 * (behind < 0)).permute(2, 0, 1)[None]

        def forward(self, x):
            return self.layers(x)

    def falling():
        steps = torch.arange(270)
        behind = steps[:, None] - steps[None, :]
        slopes = 2.0 ** (-8 / 9 * torch.arange(1, 10))
        bias = torch.where(behind < 0, float("-inf"), -behind * slopes[:, None, None])[None]
        return Stack(Layer(288, 9, 1152, True, F.gelu, bias=bias) for _ in range(2))

    def window():
        behind = torch.arange(600)[:, None] - torch.arange(600)[None, :]
        attention = nn.Module()
        attention.self_attention1 = Attention(256, 4, bias=(behind >= 0) & (behind < 64))
        attention.forward = lambda x: attention.self_attention1(x)
        return attention

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding1 = nn.Embedding(20000, 100)
            self.linear1, self.linear2 = nn.Linear(100, 250), nn.Linear(250, 20)

        def forward(self, ids):
            return self.linear2(F.relu(self.linear1(self.embedding1(ids).mean(1))))

    class Batch(nn.Module):
        """One more token of each of eight sequences."""

        def __init__(self):
            super().__init__()
            self.embedding1, self.learned_positions1 = nn.Embedding(3000, 512), nn.Embedding(256, 512)
            make = lambda: Layer(512, 8, 2048, True, F.gelu, seen=(8, POSITION))
            self.layers = nn.Sequential(*[make() for _ in range(4)])
            self.layer_norm1, self.linear1 = nn.LayerNorm(512), nn.Linear(512, 3000)

        def forward(self, ids):
            x = self.embedding1(ids) + self.learned_positions1.weight[POSITION]
            return self.linear1(self.layer_norm1(self.layers(x)))

    class Found(nn.Module):
        """Attention to keys and values that are known."""

        def __init__(self):
            super().__init__()
            self.in_proj_weight = nn.Parameter(torch.randn(960, 320) / 18)
            self.in_proj_bias, self.out_proj = nn.Parameter(0.1 * torch.randn(960)), nn.Linear(320, 320)

        def remember(self, memory):
            both = F.linear(memory, self.in_proj_weight[320:], self.in_proj_bias[320:])
            k, v = (heads(y, 5).expand(5, -1, -1, -1).contiguous() for y in both.chunk(2, -1))
            self.register_buffer("keys", k, persistent=False)
            self.register_buffer("values", v, persistent=False)

        def forward(self, x):
            q = heads(F.linear(x, self.in_proj_weight[:320], self.in_proj_bias[:320]), 5)
            found = F.scaled_dot_product_attention(q, self.keys, self.values)
            return self.out_proj(found.transpose(1, 2).flatten(2))

    class BeamLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.multihead_attn = Attention(320, 5, seen=(5, 60)), Found()
            self.linear1, self.linear2 = nn.Linear(320, 1280), nn.Linear(1280, 320)
            self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(320) for _ in range(3))

        def forward(self, x):
            h = self.norm1(x + self.self_attn(x))
            g = self.norm2(h + self.multihead_attn(h))
            return self.norm3(g + self.linear2(F.relu(self.linear1(g))))

    def sines(T, D):
        angle = torch.outer(torch.arange(T), 10000.0 ** (-torch.arange(D // 2) * 2 / D))
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    class Beam(nn.Module):
        """One more token of each of five beams."""

        def __init__(self):
            super().__init__()
            self.memory, self.table = nn.Parameter(torch.randn(1, 41, 320)), nn.Embedding(3000, 320)
            self.transformer_decoder1 = Stack(BeamLayer() for _ in range(3))
            self.transformer_decoder1.norm = nn.LayerNorm(320)
            for layer in self.transformer_decoder1.layers:
                with torch.no_grad():
                    layer.multihead_attn.remember(self.memory)
            self.register_buffer("position", sines(61, 320)[60], persistent=False)

        def forward(self, ids):
            body = self.transformer_decoder1
            return body.norm(body(self.table(ids) + self.position)) @ self.table.weight.T

    class Translate(nn.Module):
        smoothing = 0.1

        def __init__(self):
            super().__init__()
            self.read, self.head = nn.Embedding(10000, 256), nn.Linear(256, 10000)
            self.body = nn.Transformer(256, 4, 2, 2, 1024, 0.1, batch_first=True, norm_first=True)
            self.register_buffer("source", torch.randint(10000, (16, SOURCE_IDS)), persistent=False)
            self.register_buffer("position", sines(64, 256), persistent=False)

        def forward(self, ids):
            x, y = (self.read(i) + self.position[: i.shape[1]] for i in (self.source, ids))
            ahead = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
            return self.head(self.body(x, y, tgt_mask=ahead, tgt_is_causal=True))

    return {
        "Gru": lambda: Recurrent("gru1", nn.GRU(200, 200, batch_first=True)),
        "Elman": lambda: Recurrent("rnn1", nn.RNN(90, 180, batch_first=True)),
        "Ptb": lambda: Recurrent("lstm1", nn.LSTM(650, 650, 2, batch_first=True)),
        "Projected": lambda: Recurrent("lstm1", nn.LSTM(150, 300, batch_first=True, proj_size=100)),
        "Lengths": Lengths, "Judged": Judged, "Sensor": Sensor, "Cross": Cross, "Patches": Patches,
        "Llama": lambda: Stack(LlamaLayer(384, 6, 2, 1024) for _ in range(2)),
        "Distances": Distances, "Falling": falling, "Window": window,
        "Bag": Bag, "Batch": Batch, "Beam": Beam,
        "GruChars": lambda: Recurrent("gru1", nn.GRU(64, 256, batch_first=True), nn.Linear(256, 90), first=nn.Embedding(90, 64)),
        "Tagger": lambda: Recurrent("lstm1", nn.LSTM(100, 150, 2, batch_first=True, bidirectional=True), nn.Linear(300, 17), first=nn.Embedding(5000, 100)),
        "Small": Small, "Translate": Translate,
    }
