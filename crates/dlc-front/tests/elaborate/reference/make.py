"""Reference numbers for tests/library.rs: `python3 make.py > numbers.txt`, with NumPy.

Every formula is written out here from the papers' or PyTorch's definitions, by plain loops where a
layer has windows. A tensor's elements are sin(1.3*i + k), k the sum of its name's bytes; variances
and sums of squares are those squared plus 0.5.
"""
import math
import numpy as np

erf = np.vectorize(math.erf)


def fill(name, *shape):
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    v = np.sin(1.3 * i + sum(name.encode()) % 100)
    if name.endswith(("var", "square", "total")):
        v = v * v + 0.5
    return v.reshape(shape)


def show(name, *arrays):
    flat = np.concatenate([np.asarray(a, dtype=np.float64).reshape(-1) for a in arrays])
    print(name, " ".join(f"{v:.12g}" for v in flat))


def conv(x, w, b, stride, pad, dilation=(1, 1), groups=1):
    n, c, h, wd = x.shape
    o, cg, kh, kw = w.shape
    ho = (h + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    wo = (wd + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, ho, wo))
    for bn, oc, yh, yw in np.ndindex(*y.shape):
        g = oc // (o // groups)
        total = 0.0
        for ic, i, j in np.ndindex(cg, kh, kw):
            r = yh * stride[0] + i * dilation[0] - pad[0]
            s = yw * stride[1] + j * dilation[1] - pad[1]
            if 0 <= r < h and 0 <= s < wd:
                total += x[bn, g * cg + ic, r, s] * w[oc, ic, i, j]
        y[bn, oc, yh, yw] = total + (b[oc] if b is not None else 0.0)
    return y


def conv_transpose(x, w, b, stride, pad, output_pad=(0, 0), dilation=(1, 1), groups=1):
    """Every number scatters the kernel."""
    if groups > 1:
        parts = zip(np.split(x, groups, axis=1), np.split(w, groups))
        y = [conv_transpose(*part, None, stride, pad, output_pad, dilation) for part in parts]
        return np.concatenate(y, axis=1) + b[None, :, None, None]
    n, c, *size = x.shape
    _, o, *k = w.shape
    whole = [stride[a] * (size[a] - 1) + dilation[a] * (k[a] - 1) + 1 + output_pad[a] for a in (0, 1)]
    y = np.zeros((n, o, *whole))
    for bn, ic, r, s in np.ndindex(*x.shape):
        for oc, i, j in np.ndindex(o, *k):
            at = r * stride[0] + i * dilation[0], s * stride[1] + j * dilation[1]
            y[bn, oc, *at] += x[bn, ic, r, s] * w[ic, oc, i, j]
    y = y[:, :, pad[0]:whole[0] - pad[0], pad[1]:whole[1] - pad[1]]
    return y if b is None else y + b[None, :, None, None]


def pool(x, k, stride, pad, combine):
    n, c, h, w = x.shape
    ho = (h + 2 * pad - k) // stride + 1
    wo = (w + 2 * pad - k) // stride + 1
    y = np.zeros((n, c, ho, wo))
    for a, b, i, j in np.ndindex(*y.shape):
        rows = [r for r in range(i * stride - pad, i * stride - pad + k) if 0 <= r < h]
        cols = [s for s in range(j * stride - pad, j * stride - pad + k) if 0 <= s < w]
        y[a, b, i, j] = combine([x[a, b, r, s] for r in rows for s in cols])
    return y


def log_softmax(x, axis=-1):
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


x = fill("x", 2, 5)
w, b = fill("linear1.weight", 3, 5), fill("linear1.bias", 3)
show("linear", x @ w.T + b)

x = fill("x", 2, 4, 5, 6)
show("conv", conv(x, fill("conv1.weight", 3, 4, 3, 2), fill("conv1.bias", 3), (2, 1), (1, 0)))
show("conv_groups", conv(x, fill("conv1.weight", 6, 2, 3, 3), None, (1, 1), (2, 2), (2, 2), 2))
show("conv_transpose", conv_transpose(x, fill("conv_transpose1.weight", 4, 3, 3, 2),
                                      fill("conv_transpose1.bias", 3), (3, 2), (1, 0), (2, 1)))
show("conv_transpose_dilated", conv_transpose(x, fill("conv_transpose1.weight", 4, 2, 3, 3), None, (1, 1), (0, 0),
                                              dilation=(2, 2)))
show("conv_transpose_groups", conv_transpose(x, fill("conv_transpose1.weight", 4, 3, 2, 3),
                                             fill("conv_transpose1.bias", 6), (2, 1), (1, 1), groups=2))
show("upsample", x.repeat(2, axis=2).repeat(3, axis=3))
show("max_pool", pool(x, 3, 2, 1, max))
show("avg_pool", pool(x, 3, 2, 1, lambda v: sum(v) / 9))
show("global_avg_pool", x.mean(axis=(2, 3)))
x1 = fill("x", 2, 3, 7)
show("conv1d", conv(x1[:, :, None, :], fill("conv1d1.weight", 2, 3, 3)[:, :, None, :],
                    fill("conv1d1.bias", 2), (1, 2), (0, 1)))
show("conv1d_groups", conv(fill("x", 2, 4, 7)[:, :, None, :], fill("conv1d1.weight", 6, 2, 3)[:, :, None, :],
                           fill("conv1d1.bias", 6), (1, 2), (0, 1), (1, 2), groups=2))

g, s = fill("batch_norm1.weight", 4), fill("batch_norm1.bias", 4)
rm, rv = fill("batch_norm1.running_mean", 4), fill("batch_norm1.running_var", 4)
lift = lambda v: v[None, :, None, None]
mu, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
count = 2 * 5 * 6
show("batch_norm_train", (x - lift(mu)) / np.sqrt(lift(var) + 1e-5) * lift(g) + lift(s),
     0.9 * rm + 0.1 * mu, 0.9 * rv + 0.1 * var * count / (count - 1))
show("batch_norm_infer", (x - lift(rm)) / np.sqrt(lift(rv) + 1e-5) * lift(g) + lift(s))
groups = x.reshape(2, 2, -1)
groups = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
show("group_norm", groups.reshape(x.shape) * lift(fill("group_norm1.weight", 4)) + lift(fill("group_norm1.bias", 4)))
show("instance_norm", (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5))
x = fill("x", 3, 4)
mu, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
show("layer_norm", (x - mu) / np.sqrt(var + 1e-5) * fill("layer_norm1.weight", 4)
     + fill("layer_norm1.bias", 4))

show("relu", np.maximum(x, 0))
show("leaky_relu", np.where(x > 0, x, 0.01 * x))
show("elu", np.where(x > 0, x, np.exp(x) - 1))
show("silu", x / (1 + np.exp(-x)))
show("gelu", 0.5 * x * (1 + erf(x / math.sqrt(2))))
show("softplus", np.log(1 + np.exp(x)))
show("tanh", np.tanh(x))
show("sigmoid", 1 / (1 + np.exp(-x)))
show("softmax", np.exp(log_softmax(x)))
show("softmax_axis", np.exp(log_softmax(x, 0)))
show("log_softmax", log_softmax(x))
label = np.array([0, 0, 3])
show("cross_entropy", -log_softmax(x)[np.arange(3), label].mean())
show("mse", ((x - fill("y", 3, 4)) ** 2).mean())
show("accuracy", (x.argmax(axis=-1) == label).mean())
x3 = fill("x", 2, 3, 4)
show("cross_entropy_3d", -np.take_along_axis(log_softmax(x3), np.array([[2, 0, 3], [1, 1, 0]])[..., None],
                                             axis=-1).mean())

sequence, state, steps = fill("x", 2, 3, 4), np.zeros((2, 2)), []
w, u = fill("gru1.weight_ih_l0", 6, 4), fill("gru1.weight_hh_l0", 6, 2)
b, bu = fill("gru1.bias_ih_l0", 6), fill("gru1.bias_hh_l0", 6)
for t in range(3):
    a = sequence[:, t] @ w.T + b + bu
    reset, update = (1 / (1 + np.exp(-(a[:, k:k + 2] + state @ u[k:k + 2].T))) for k in (0, 2))
    new = np.tanh(a[:, 4:] + (reset * state) @ u[4:].T)
    state = (1 - update) * new + update * state
    steps.append(state)
show("gru_reset", np.stack(steps, axis=1))

h = fill("h", 3, 4, 2)
lengths = [4, 1, 3]
show("last_value", h[:, -1])
show("last_value_lengths", [h[n, t - 1] for n, t in enumerate(lengths)])
show("last_value_none", h[0, -1], [0, 0], h[2, 2])
show("mean_value_none", h[0].mean(0), [0, 0], h[2, :3].mean(0))
show("mean_value", h.mean(1))
show("mean_value_lengths", [h[n, :t].mean(0) for n, t in enumerate(lengths)])

# Optimizers: three steps from p on the loss sum(c * p * p) / 2.
c, p0 = fill("c", 3), fill("p", 3)


def run(step):
    p, state = p0.copy(), {}
    for t in range(3):
        p = step(p, c * p, state, t + 1)
    return p


def sgd(p, g, s, t): return p - 0.1 * (g + 0.01 * p)


def momentum(p, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * s["v"]


def nesterov(p, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * (g + 0.9 * s["v"])


def adagrad(p, g, s, t):
    s["q"] = s.get("q", 0) + g * g
    return p - 0.1 * g / (np.sqrt(s["q"]) + 1e-10)


def rmsprop(p, g, s, t):
    s["q"] = 0.99 * s.get("q", 0) + 0.01 * g * g
    return p - 0.1 * g / (np.sqrt(s["q"]) + 1e-8)


def adadelta(p, g, s, t):
    s["q"] = 0.9 * s.get("q", 0) + 0.1 * g * g
    d = g * np.sqrt(s.get("d", 0) + 1e-6) / np.sqrt(s["q"] + 1e-6)
    s["d"] = 0.9 * s.get("d", 0) + 0.1 * d * d
    return p - 0.1 * d


def moments(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["q"] = 0.999 * s.get("q", 0) + 0.001 * g * g
    denominator = np.sqrt(s["q"]) / math.sqrt(1 - 0.999 ** t) + 1e-8
    return 0.1 / (1 - 0.9 ** t) * s["m"] / denominator


def adam(p, g, s, t): return p - moments(p, g, s, t)


def adamw(p, g, s, t): return p * (1 - 0.1 * 0.01) - moments(p, g, s, t)


for step in (sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, adamw):
    show(step.__name__, run(step))

# Initializers of a weight [6, 4, 3, 2]: fan_in 24, fan_out 36. The largest absolute value possible
# (uniform) or the standard deviation (normal).
show("xavier_uniform", math.sqrt(6 / 60))
show("xavier_normal", math.sqrt(2 / 60))
show("kaiming_uniform", math.sqrt(2) * math.sqrt(3 / 24))
show("kaiming_normal", math.sqrt(2) / math.sqrt(24))
show("kaiming_normal_out", math.sqrt(2) / math.sqrt(36))

# Schedules of the number 0.5 at the steps 0 to 12 of 10 planned ones, by PyTorch's and Keras's
# definitions: CosineAnnealingLR, CosineDecay with warmup_steps and alpha, LinearLR,
# transformers' get_linear_schedule_with_warmup, OneCycleLR's two cosine phases, ExponentialDecay
# without and with staircase, the formula of Vaswani et al. without the factor of the model's size,
# which counts steps from 1.
PEAK, STEPS = 0.5, 10


def cosine(t): return PEAK * (1 + math.cos(math.pi * min(t, STEPS) / STEPS)) / 2


def cosine_warmup(t):
    if t < 4:
        return PEAK * t / 4
    part = min(t - 4, 6) / 6
    return PEAK * (0.9 * 0.5 * (1 + math.cos(math.pi * part)) + 0.1)


def linear_decay(t): return PEAK * (1 + (0.2 - 1) * min(t, STEPS) / STEPS)


def linear_warmup(t): return PEAK * (t / 4 if t < 4 else max(0, (STEPS - t) / (STEPS - 4)))


def anneal(start, end, part): return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def one_cycle(t):
    first, last = PEAK / 25, PEAK / 25 / 1e4
    if t < 4:
        return anneal(first, PEAK, t / 4)
    return anneal(PEAK, last, min(t - 4, 6) / 6)


def exponential_decay(t): return PEAK * 0.8 ** (t / 3)


def step_decay(t): return PEAK * 0.8 ** (t // 3)


def inverse_sqrt(t): return PEAK * 4 ** 0.5 * min((t + 1) ** -0.5, (t + 1) * 4 ** -1.5)


for schedule in (cosine, cosine_warmup, linear_decay, linear_warmup, one_cycle, exponential_decay,
                 step_decay, inverse_sqrt):
    show(schedule.__name__, [schedule(t) for t in range(13)])
