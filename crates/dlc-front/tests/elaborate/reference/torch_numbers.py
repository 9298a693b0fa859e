"""Reference numbers of losses for tests/library.rs: `python torch_numbers.py > torch_numbers.txt`.

PyTorch computes them in f64: each line has the loss and its gradient. Tensors are filled as in
make.py.
"""
import numpy as np
import torch
import torch.nn.functional as F


def fill(name, *shape):
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.tensor(np.sin(1.3 * i + sum(name.encode()) % 100).reshape(shape))


def show(name, loss):
    x = fill("x", 2, 3, 4).requires_grad_()
    value = loss(x)
    value.backward()
    flat = [value.item(), *x.grad.reshape(-1).tolist()]
    print(name, " ".join(f"{v:.12g}" for v in flat))


labels = torch.tensor([[2, 0, 3], [1, 1, 0]])
mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
weight = torch.tensor([[0.5, 2.0, 0.0], [1.25, 0.0, 3.0]], dtype=torch.float64)
kept = torch.where(mask > 0, labels, -100)
answers = (fill("y", 2, 3, 4) + 1) / 2


def cross_entropy(target, **options):
    return lambda x: F.cross_entropy(x.reshape(6, 4), target.reshape(6), **options)


def weighted(x):
    each = F.cross_entropy(x.reshape(6, 4), labels.reshape(6), reduction="none")
    return (each * weight.reshape(6)).sum() / weight.sum()


def binary(mask):
    def loss(x):
        each = F.binary_cross_entropy_with_logits(x, answers, reduction="none").mean(-1)
        return (each * mask).sum() / mask.sum()
    return loss


def accuracy(x):
    hits = (x.argmax(-1) == labels).double()
    return (hits * mask).sum() / mask.sum() + 0 * x.sum()


show("ce", cross_entropy(labels))
show("ce_smoothing", cross_entropy(labels, label_smoothing=0.1))
show("ce_mask", cross_entropy(kept))
show("ce_smoothing_mask", cross_entropy(kept, label_smoothing=0.1))
show("ce_weight", weighted)
show("bce", lambda x: F.binary_cross_entropy_with_logits(x, answers))
show("bce_mask", binary(mask))
show("perplexity_mask", lambda x: torch.exp(cross_entropy(kept)(x)))
show("accuracy_mask", accuracy)
