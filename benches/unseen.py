"""Models that nothing in dlc was tuned for, in PyTorch: odd widths, odd sizes, groups. `unseen.dl` has the
same in dlc's language; `peers.py` measures them."""
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".dl")
LAYERS = {  # channels, filters, size of the image, of the filter, step, groups
    "Depthwise3": (96, 96, 56, 3, 1, 96),
    "Depthwise3s2": (96, 96, 56, 3, 2, 96),
    "Depthwise3odd": (45, 45, 29, 3, 1, 45),
    "Depthwise7": (96, 96, 28, 7, 1, 96),
    "Depthwise5s2": (72, 72, 35, 5, 2, 72),
    "Groups2": (96, 96, 28, 3, 1, 2),
    "Groups8": (96, 96, 28, 3, 1, 8),
    "Groups32": (128, 128, 28, 3, 1, 32),
    "Groups5odd": (45, 75, 27, 3, 1, 5),
}


def cases(Case):
    """By name: every model and every layer."""
    all, peers = {}, ["onnxruntime", "openvino", "tract"]
    modules = models()
    shapes = {"ConvNext": (3, 112, 112), "Mobile": (3, 97, 97), "ResNext": (3, 60, 60), "UNet": (1, 100, 100), "Mixer": (3, 84, 84), "Sound": (9, 4000)}
    for name, shape in shapes.items():
        all[name.lower()] = Case(SOURCE, name, modules[name], (1, *shape), ["N=1"], peers=peers)
    steps = ["torch", "torch-nhwc"]
    all["mobile_step_8"] = Case(SOURCE, "Mobile", modules["Mobile"], (8, 3, 97, 97), peers=steps, optimizer=adam)
    for name, batch in dict(ConvNext=8, ResNext=16, UNet=4, Mixer=16, Sound=16).items():
        own = steps if len(shapes[name]) == 3 else steps[:1]
        all[f"{name.lower()}_step"] = Case(SOURCE, name, modules[name], (batch, *shapes[name]), peers=own, optimizer=adam)
    for name, (channels, filters, image, size, step, groups) in LAYERS.items():
        layer = modules["Layer"]
        make = lambda c=channels, f=filters, k=size, s=step, g=groups: layer(c, f, k, s, g)
        all[name.lower()] = Case(SOURCE, name, make, (1, channels, image, image), ["N=1"], peers=peers)
    for n in (8, 16, 32):
        all[f"products{n}"] = Case(SOURCE, f"Products{n}", modules["Products"], (2, 500, n, n), peers=["torch", "onnxruntime", "tract"])
    return all


def adam(parameters):
    import torch

    return torch.optim.Adam(parameters, lr=1e-3)


def models():
    """The modules; made here, so that nothing needs PyTorch before it is asked for."""
    import torch
    from torch import nn

    F = nn.functional

    class NextBlock(nn.Module):
        def __init__(self, C, Fd):
            super().__init__()
            self.conv1 = nn.Conv2d(C, C, 7, padding=3, groups=C)
            self.layer_norm1 = nn.LayerNorm(C)
            self.linear1 = nn.Linear(C, Fd)
            self.linear2 = nn.Linear(Fd, C)

        def forward(self, x):
            t = self.conv1(x).permute(0, 2, 3, 1)
            return x + self.linear2(F.gelu(self.linear1(self.layer_norm1(t)))).permute(0, 3, 1, 2)

    class ConvNext(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 46, 4, 4)
            self.stage1 = nn.Sequential(*[NextBlock(46, 184) for _ in range(2)])
            self.conv2 = nn.Conv2d(46, 92, 2, 2)
            self.stage2 = nn.Sequential(*[NextBlock(92, 368) for _ in range(3)])
            self.linear1 = nn.Linear(92, 90)

        def forward(self, x):
            return self.linear1(self.stage2(self.conv2(self.stage1(self.conv1(x)))).mean((2, 3)))

    class Bottleneck(nn.Module):
        """A convolution of `middle` filters in groups between two of single points, beside its input."""

        def __init__(self, channels, middle, filters, step, groups):
            super().__init__()
            self.skip = step == 1 and channels == filters
            self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
            self.batch_norm1 = nn.BatchNorm2d(middle)
            self.conv2 = nn.Conv2d(middle, middle, 3, step, 1, groups=groups, bias=False)
            self.batch_norm2 = nn.BatchNorm2d(middle)
            self.conv3 = nn.Conv2d(middle, filters, 1, bias=False)
            self.batch_norm3 = nn.BatchNorm2d(filters)

        def forward(self, x):
            y = F.relu(self.batch_norm1(self.conv1(x)))
            y = F.relu(self.batch_norm2(self.conv2(y)))
            y = self.batch_norm3(self.conv3(y))
            return x + y if self.skip else y

    class Inverted(Bottleneck):
        def __init__(self, channels, filters, step, middle):
            super().__init__(channels, middle, filters, step, middle)

    class Next(Bottleneck):
        def __init__(self, channels, filters, step, groups):
            super().__init__(channels, filters, filters, step, groups)

        def forward(self, x):
            return F.relu(super().forward(x))

    class Chain(nn.Module):
        """A convolution, blocks, an average and a linear layer; blocks have the names dlc gives them."""

        def __init__(self, first, O1, blocks, last):
            super().__init__()
            self.conv1 = first
            self.batch_norm1 = nn.BatchNorm2d(O1)
            self.names = []
            for k, b in enumerate(blocks):
                n = f"{type(b).__name__}{k+1}"
                setattr(self, n, b)
                self.names.append(n)
            self.linear1 = last

        def forward(self, x):
            x = F.relu(self.batch_norm1(self.conv1(x)))
            for n in self.names:
                x = getattr(self, n)(x)
            return self.linear1(x.mean((2, 3)))

    def mobile():
        rows = [(18, 18, 1, 36), (18, 27, 2, 108), (27, 27, 1, 162), (27, 45, 2, 162), (45, 45, 1, 270), (45, 45, 1, 270), (45, 90, 2, 270), (90, 90, 1, 540)]
        return Chain(nn.Conv2d(3, 18, 3, 2, 1, bias=False), 18, [Inverted(*r) for r in rows], nn.Linear(90, 50))

    def resnext():
        rows = [(64, 96, 1, 2), (96, 96, 1, 32), (96, 160, 2, 8), (160, 160, 1, 5), (160, 160, 1, 16)]
        return Chain(nn.Conv2d(3, 64, 3, 2, 1, bias=False), 64, [Next(*r) for r in rows], nn.Linear(160, 30))

    class Double(nn.Module):
        def __init__(self, I, O):
            super().__init__()
            self.conv1 = nn.Conv2d(I, O, 3, padding=1)
            self.conv2 = nn.Conv2d(O, O, 3, padding=1)

        def forward(self, x):
            return F.relu(self.conv2(F.relu(self.conv1(x))))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.Double1, self.Double2, self.Double3 = Double(1, 20), Double(20, 40), Double(40, 80)
            self.Up1 = nn.ConvTranspose2d(80, 40, 2, 2)
            self.Double4 = Double(80, 40)
            self.Up2 = nn.ConvTranspose2d(40, 20, 2, 2)
            self.Double5 = Double(40, 20)
            self.conv1 = nn.Conv2d(20, 2, 1)

        def forward(self, x):
            a = self.Double1(x)
            b = self.Double2(F.max_pool2d(a, 2))
            c = self.Double3(F.max_pool2d(b, 2))
            d = self.Double4(torch.cat([self.Up1(c), b], 1))
            return self.conv1(self.Double5(torch.cat([self.Up2(d), a], 1)))

        def loss(self, x):
            y = self(x)
            return F.mse_loss(y, torch.zeros_like(y))

    class MixerBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer_norm1 = nn.LayerNorm(150)
            self.linear1 = nn.Linear(49, 100)
            self.linear2 = nn.Linear(100, 49)
            self.layer_norm2 = nn.LayerNorm(150)
            self.linear3 = nn.Linear(150, 600)
            self.linear4 = nn.Linear(600, 150)

        def forward(self, x):
            y = x + self.linear2(F.gelu(self.linear1(self.layer_norm1(x).transpose(1, 2)))).transpose(1, 2)
            return y + self.linear4(F.gelu(self.linear3(self.layer_norm2(y))))

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 150, 12, 12)
            self.blocks = nn.Sequential(*[MixerBlock() for _ in range(4)])
            self.layer_norm1 = nn.LayerNorm(150)
            self.linear1 = nn.Linear(150, 25)

        def forward(self, x):
            return self.linear1(self.layer_norm1(self.blocks(self.conv1(x).flatten(2).transpose(1, 2))).mean(1))

    class Sound(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1d1 = nn.Conv1d(9, 33, 15, 2, 7)
            self.conv1d2 = nn.Conv1d(33, 66, 5, 2, 2)
            self.conv1d3 = nn.Conv1d(66, 66, 3, padding=2, dilation=2)
            self.conv1d4 = nn.Conv1d(66, 99, 3, padding=4, dilation=4)
            self.linear1 = nn.Linear(99, 12)

        def forward(self, x):
            for c in (self.conv1d1, self.conv1d2, self.conv1d3, self.conv1d4):
                x = F.relu(c(x))
            return self.linear1(x.mean(2))

    class Products(nn.Module):
        def forward(self, x):
            return torch.matmul(x[0], x[1])

    class Layer(nn.Module):
        def __init__(self, channels, filters, size, step, groups):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, filters, size, step, size // 2, groups=groups)

        def forward(self, x):
            return self.conv1(x)

    named = {"ConvNext": ConvNext, "Mobile": mobile, "ResNext": resnext, "UNet": UNet, "Mixer": Mixer, "Sound": Sound}
    return named | {"Layer": Layer, "Products": Products}

