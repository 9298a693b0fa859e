"""Modules of PyTorch and their inputs in files that other programs read."""


def onnx_file(module, x, folder):
    import torch

    path = f"{folder}/model.onnx"
    torch.onnx.export(module, (x,), path, input_names=["x"], dynamo=False)
    return path


def weights_file(module, folder):
    import torch
    from safetensors.torch import save_file

    path = f"{folder}/w.safetensors"
    weights = {key: value for key, value in module.state_dict().items() if value.dtype == torch.float32}
    save_file(weights, path)
    return path
