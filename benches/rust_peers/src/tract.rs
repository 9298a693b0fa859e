//! tract, at any model that exports to ONNX.

use safetensors::{Dtype, SafeTensors};
use tract_onnx::prelude::*;

use crate::case::{Case, Result, timed};

pub fn measure(case: &Case) -> Result<()> {
    if case.threads > 1 {
        multithread::set_default_executor(multithread::Executor::multithread(case.threads));
    }
    let path = case.folder.join("model.onnx");
    let model = tract_onnx::onnx().model_for_path(path)?.into_optimized()?.into_runnable()?;
    let x: TValue = input(case)?.into();
    let y = timed(|| Ok(model.run(tvec!(x.clone()))?))?;
    let y = y[0].to_plain_array_view::<f32>()?;
    case.store(y.shape(), y.as_standard_layout().as_slice().expect("in standard layout"))
}

/// Numbers, or ids.
fn input(case: &Case) -> Result<Tensor> {
    let file = case.tensors("x")?;
    let file = SafeTensors::deserialize(&file)?;
    let view = file.tensor("x")?;
    Ok(match view.dtype() {
        Dtype::I64 => tensor::<i64>(view.shape(), view.data())?,
        _ => tensor::<f32>(view.shape(), view.data())?,
    })
}

fn tensor<T: Datum + bytemuck::Pod>(shape: &[usize], bytes: &[u8]) -> TractResult<Tensor> {
    Tensor::from_shape(shape, &bytemuck::pod_collect_to_vec::<u8, T>(bytes))
}
