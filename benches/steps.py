"""Training steps that nothing in dlc was tuned for, in PyTorch; `steps.dl` has the same in dlc's language."""
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".dl")


def cases(Case):
    """By name: every step."""
    import torch
    from torch import optim

    sgd = lambda lr, **more: lambda parameters: optim.SGD(parameters, lr=lr, **more)
    wanted = {  # input, optimizer
        "Vgg": ((32, 3, 32, 32), sgd(0.01, momentum=0.9)),
        "Dense": ((16, 3, 32, 32), sgd(0.1, momentum=0.9, nesterov=True)),
        "Efficient": ((8, 3, 96, 96), lambda parameters: optim.RMSprop(parameters, lr=1e-3)),
        "Groups": ((16, 3, 40, 40), lambda parameters: optim.Adam(parameters, lr=1e-3)),
        "Cells": ((8, 3, 80, 80), sgd(0.01, momentum=0.9)),
        "Judged": ((32, 64), lambda parameters: optim.Adam(parameters, lr=2e-4)),
        "Inception": ((16, 3, 64, 64), sgd(0.01, momentum=0.9)),
        "Wide": ((200, 784), optim.Adadelta),
        "Actor": ((256, 24), lambda parameters: optim.Adam(parameters, lr=3e-4)),
        "Gcn": ((2708, 1433), lambda parameters: optim.Adagrad(parameters, lr=0.01)),
        "Edges": ((2708, 1433), lambda parameters: optim.Adam(parameters, lr=0.01)),
        "Softmax": ((64, 784), sgd(0.1)),
        "Logistic": ((100, 30), sgd(0.1)),
    }
    modules, all = models(), {}
    for name, (shape, optimizer) in wanted.items():
        peers = ["torch"] + ["torch-nhwc"] * (len(shape) == 4)
        module = modules[name]
        all[f"{name.lower()}_step"] = Case(SOURCE, name, module, shape, peers=peers, optimizer=optimizer)
    return all


def models():
    """The modules. Those whose loss is not the cross-entropy have a `loss` of their own."""
    import torch
    from torch import nn

    F = nn.functional

    def plain(i, o):
        return [nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    def vgg():
        stage = lambda i, o: [*plain(i, o), *plain(o, o), nn.MaxPool2d(2)]
        head = [nn.Flatten(), nn.Dropout(), nn.Linear(4096, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)]
        return nn.Sequential(*stage(3, 64), *stage(64, 128), *stage(128, 256), *head)

    class Grow(nn.Module):
        def __init__(self, c, g):
            super().__init__()
            first = [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4 * g, 1, bias=False)]
            self.all = nn.Sequential(*first, nn.BatchNorm2d(4 * g), nn.ReLU(), nn.Conv2d(4 * g, g, 3, 1, 1, bias=False))

        def forward(self, x):
            return torch.cat([x, self.all(x)], 1)

    def dense():
        stages, c = [nn.Conv2d(3, 24, 3, 1, 1, bias=False)], 24
        for k in range(3):
            for _ in range(6):
                stages.append(Grow(c, 12))
                c += 12
            if k < 2:
                stages += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
                c //= 2
        return nn.Sequential(*stages, nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))

    class Excite(nn.Module):
        def __init__(self, c, r):
            super().__init__()
            self.all = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, r, 1), nn.SiLU(), nn.Conv2d(r, c, 1), nn.Sigmoid())

        def forward(self, x):
            return x * self.all(x)

    class Mb(nn.Module):
        def __init__(self, c, o, s, e, k):
            super().__init__()
            self.skip = s == 1 and c == o
            first = [nn.Conv2d(c, e, 1, bias=False), nn.BatchNorm2d(e), nn.SiLU(True)]
            then = [nn.Conv2d(e, e, k, s, k // 2, groups=e, bias=False), nn.BatchNorm2d(e), nn.SiLU(True)]
            self.all = nn.Sequential(*first, *then, Excite(e, c // 4), nn.Conv2d(e, o, 1, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            return x + self.all(x) if self.skip else self.all(x)

    def efficient():
        rows = [(16, 24, 2, 96, 3), (24, 24, 1, 144, 3), (24, 40, 2, 144, 5), (40, 40, 1, 240, 5), (40, 80, 2, 240, 3), (80, 80, 1, 480, 5)]
        first = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU(True)]
        last = [nn.Conv2d(80, 320, 1, bias=False), nn.BatchNorm2d(320), nn.SiLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 20)]
        return nn.Sequential(*first, *[Mb(*r) for r in rows], *last)

    class Normed(nn.Module):
        def __init__(self, i, o, g):
            super().__init__()
            self.all = nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.GroupNorm(g, o), nn.SiLU(), nn.Conv2d(o, o, 3, 1, 1), nn.GroupNorm(g, o))
            self.skip = nn.Identity() if i == o else nn.Conv2d(i, o, 1)

        def forward(self, x):
            return F.silu(self.skip(x) + self.all(x))

    def groups():
        first = [Normed(3, 32, 8), Normed(32, 32, 8), nn.MaxPool2d(2), Normed(32, 64, 64), Normed(64, 64, 64)]
        return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            stages = []
            for i, o in ((3, 16), (16, 32), (32, 64)):
                stages += [nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.1)]
                stages += [nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.1)]
            self.all = nn.Sequential(*stages, nn.Conv2d(64, 17, 1))
            self.box, self.there = torch.rand(8, 10, 10, 4), (torch.rand(8, 10, 10) < 0.2).float()
            self.kind = torch.randint(12, (8, 10, 10))

        def loss(self, x):
            z = self.all(x).permute(0, 2, 3, 1)
            count = self.there.sum()
            places = ((z[..., :4].sigmoid() - self.box).square().sum(-1) * self.there).sum() / count
            kinds = F.cross_entropy(z[..., 5:].flatten(0, 2), self.kind.flatten(), reduction="none")
            return places + F.binary_cross_entropy_with_logits(z[..., 4], self.there) + (kinds * self.there.flatten()).sum() / count

    class Judged(nn.Module):
        def __init__(self):
            super().__init__()
            up = lambda i, o, bias=False: nn.ConvTranspose2d(i, o, 4, 2, 1, bias=bias)
            down = lambda i, o, bias=False: nn.Conv2d(i, o, 4, 2, 1, bias=bias)
            made = [nn.BatchNorm2d(256), nn.ReLU(True), up(256, 128), nn.BatchNorm2d(128), nn.ReLU(True)]
            made += [up(128, 64), nn.BatchNorm2d(64), nn.ReLU(True), up(64, 3, True), nn.Tanh()]
            judge = [down(3, 64, True), nn.LeakyReLU(0.2, True), down(64, 128), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, True)]
            judge += [down(128, 256), nn.BatchNorm2d(256), nn.LeakyReLU(0.2, True), nn.Flatten(), nn.Linear(4096, 1)]
            self.first, self.rest = nn.Linear(64, 4096), nn.Sequential(*made, *judge)
            self.y = (torch.rand(32, 1) < 0.5).float()

        def loss(self, x):
            return F.binary_cross_entropy_with_logits(self.rest(self.first(x).view(-1, 256, 4, 4)), self.y)

    def unit(i, o, k, s=1):
        return [nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(True)]

    class Branches(nn.Module):
        def __init__(self, i, a, b1, b2, c1, c2, d):
            super().__init__()
            branches = [unit(i, a, 1), unit(i, b1, 1) + unit(b1, b2, 3), unit(i, c1, 1) + unit(c1, c2, 5)]
            branches.append([nn.MaxPool2d(3, 1, 1)] + unit(i, d, 1))
            self.all = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

        def forward(self, x):
            return torch.cat([branch(x) for branch in self.all], 1)

    def inception():
        first = unit(3, 48, 5, 2) + [nn.MaxPool2d(3, 2, 1), Branches(48, 32, 48, 64, 8, 16, 16)]
        then = [Branches(128, 48, 64, 96, 16, 32, 24), nn.MaxPool2d(3, 2, 1), Branches(200, 64, 48, 104, 12, 30, 32)]
        last = [Branches(230, 80, 56, 112, 12, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4)]
        return nn.Sequential(*first, *then, *last, nn.Linear(256, 40))

    def wide():
        part = lambda i, o, p: [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Dropout(p)]
        return nn.Sequential(*part(784, 1000, 0.2), *part(1000, 300, 0.5), *part(300, 77, 0.5), nn.Linear(77, 10))

    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            make = lambda o: nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, o))
            self.policy, self.value = make(6), make(1)
            self.action, self.before = torch.randint(6, (256, 1)), torch.full((256,), -1.8)
            self.gain, self.reward = torch.randn(256), torch.randn(256)

        def loss(self, x):
            l, v = self.policy(x).log_softmax(-1), self.value(x)[:, 0]
            r = (l.gather(1, self.action)[:, 0] - self.before).exp()
            gained = torch.min(r * self.gain, r.clamp(0.8, 1.2) * self.gain).mean()
            return -gained + 0.5 * F.mse_loss(v, self.reward) + 0.01 * (l.exp() * l).sum(-1).mean()

    class Gcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear1, self.linear2 = nn.Linear(1433, 16), nn.Linear(16, 7)
            self.near = torch.rand(2708, 2708)

        def step(self, x):
            return self.near @ x

        def forward(self, x):
            return self.step(self.linear2(F.dropout(F.relu(self.step(self.linear1(x))))))

    class Edges(Gcn):
        """With `index_add`, as graph libraries compute it, over as many edges as `steps.dl` has."""

        def __init__(self):
            super().__init__()
            self.to = torch.arange(2708).repeat_interleave(16)
            self.at, self.weight = torch.randint(2708, (2708 * 16,)), torch.rand(2708 * 16, 1)

        def step(self, x):
            return torch.zeros_like(x).index_add(0, self.to, x[self.at] * self.weight)

    class Logistic(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear1 = nn.Linear(30, 1)
            self.y = (torch.rand(100, 1) < 0.5).float()

        def loss(self, x):
            return F.binary_cross_entropy_with_logits(self.linear1(x), self.y)

    chains = {"Vgg": vgg, "Dense": dense, "Efficient": efficient, "Groups": groups, "Cells": Cells, "Wide": wide}
    chains |= {"Judged": Judged, "Inception": inception}
    return chains | {"Actor": Actor, "Gcn": Gcn, "Edges": Edges, "Softmax": lambda: nn.Linear(784, 10), "Logistic": Logistic}
