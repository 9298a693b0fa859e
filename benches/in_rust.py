"""Peers in Rust, which the crate `rust_peers` holds:

    (cd benches/rust_peers && cargo build --release)

Its binary measures one peer, a process of its own, on the files that are put before it here.
"""
import os, subprocess, tempfile
from pathlib import Path

from exported import onnx_file, weights_file

BINARY = Path(__file__).resolve().parent.parent / "target/rust_peers/release/rust-peers"
PEERS = ["candle", "tract", "gemm", "faer", "matrixmultiply"]


def installed(peer):
    return BINARY.exists()


def timed(peer, case, module, x, threads):
    """The median seconds of a call, warm, and the output."""
    from safetensors.torch import load_file, save_file

    set_threads = {"RAYON_NUM_THREADS": str(threads), "MATMUL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        save_file({"x": x}, f"{folder}/x.safetensors")
        if peer == "tract":
            onnx_file(module, x, folder)
        else:
            weights_file(module, folder)
        command = [BINARY, peer, case.model, folder, str(threads)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | set_threads)
        return float(found.stdout), load_file(f"{folder}/y.safetensors")["y"]
