//! A peer of dlc in Rust, measured in a process of its own: `rust-peers PEER MODEL FOLDER THREADS`.
//!
//! FOLDER holds the input, and the weights or the ONNX file, as `in_rust.py` writes them. The median
//! seconds of a call are printed; the output goes into FOLDER, to be compared.

mod candle;
mod case;
mod products;
mod tract;

use case::{Case, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, model, folder, threads] = arguments.as_slice() else {
        return Err("usage: rust-peers PEER MODEL FOLDER THREADS".into());
    };
    let case = Case { model: model.clone(), folder: folder.into(), threads: threads.parse()? };
    match peer.as_str() {
        "candle" => candle::measure(&case),
        "tract" => tract::measure(&case),
        "gemm" => products::measure(&case, products::gemm),
        "faer" => products::measure(&case, products::faer),
        "matrixmultiply" => products::measure(&case, products::matrixmultiply),
        _ => Err(format!("there is no peer `{peer}`").into()),
    }
}
