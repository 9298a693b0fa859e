"""Peers in Python. Each is a function: from case, module, input and threads to a call that computes,
and gives the output if it is inference.
"""
import importlib.util, os, statistics, tempfile, time

from exported import onnx_file


def torch_peer(case, module, x, threads):
    import torch

    torch.set_num_threads(threads)
    if case.train:
        return torch_step(case, module, x)
    module.requires_grad_(False)

    def call():
        with torch.inference_mode():
            return module(x)

    return call


def torch_step(case, module, x):
    import torch

    optimizer = case.optimizer(module.parameters())
    loss = getattr(module, "loss", None) or (lambda x: cross_entropy(case, module, x))

    def call():
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return call


def cross_entropy(case, module, x):
    """Of what the module gives for each example, or each id."""
    import torch

    label = torch.arange(case.shape[0]) % 7 if case.ids is None else x.flatten()
    smoothing = getattr(module, "smoothing", 0.0)
    return torch.nn.functional.cross_entropy(module(x).flatten(0, -2), label, label_smoothing=smoothing)


def torch_nhwc_peer(case, module, x, threads):
    import torch

    last = torch.channels_last
    return torch_peer(case, module.to(memory_format=last), x.to(memory_format=last), threads)


def torch_out_peer(case, module, x, threads):
    """Into an output that is there already."""
    import torch

    torch.set_num_threads(threads)
    out = torch.empty_like(x)

    def call():
        with torch.inference_mode():
            return torch.ops.aten.gelu.out(x, out=out)

    return call


def onnxruntime_peer(case, module, x, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(onnx_file(module, x, folder), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)[0]


def openvino_peer(case, module, x, threads):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        core = openvino.Core()
        request = core.compile_model(core.read_model(onnx_file(module, x, folder)), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))

    def call():
        request.infer(share_outputs=True)
        return request.get_output_tensor().data

    return call


def numpy_peer(case, module, x, threads):
    import numpy

    left, right = x.numpy(), module.state_dict()["linear1.weight"].numpy().T
    out = numpy.empty((left.shape[0], right.shape[1]), numpy.float32)
    return lambda: numpy.matmul(left, right, out=out)


def jax_peer(case, module, x, threads):
    # XLA starts a thread for every processor it may use, and has no other setting that it heeds.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    weights = {key: jax.numpy.asarray(value.numpy()) for key, value in module.state_dict().items()}
    function, x = jax.jit(lambda x: case.jax(jax.nn, weights, x)), jax.numpy.asarray(x.numpy())
    return lambda: function(x).block_until_ready()


PEERS = {
    "torch": torch_peer,
    "torch-nhwc": torch_nhwc_peer,
    "torch-out": torch_out_peer,
    "onnxruntime": onnxruntime_peer,
    "openvino": openvino_peer,
    "numpy": numpy_peer,
    "jax": jax_peer,
}


def installed(peer):
    module = {"torch-nhwc": "torch", "torch-out": "torch"}.get(peer, peer)
    return importlib.util.find_spec(module) is not None


def timed(peer, case, module, x, threads):
    """The median seconds of a call, warm, and the output if it is inference."""
    call = PEERS[peer](case, module, x, threads)
    output = None if case.train else call()
    for budget in (0.3, 1.0):
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < budget:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return statistics.median(times), output
