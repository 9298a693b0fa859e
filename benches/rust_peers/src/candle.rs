//! candle: the models, as its own layers say them.

mod residual;
mod sequence;

use candle_core::{Device, Result, Tensor};
use candle_nn::{
    Activation, Conv2dConfig, Module, Sequential, VarBuilder, conv2d, layer_norm, linear,
    linear_no_bias, ops, seq,
};

use crate::case::{self, Case, timed};

pub fn measure(case: &Case) -> case::Result<()> {
    let device = Device::Cpu;
    let x = candle_core::safetensors::load_buffer(&case.tensors("x")?, &device)?.remove("x");
    let x = x.ok_or("there is no input")?;
    let dtype = x.dtype();
    let weights = VarBuilder::from_buffered_safetensors(case.tensors("w")?, dtype, &device)?;
    let model = model(&case.model, &x, weights)?;
    let y = timed(|| Ok(model.forward(&x)?))?;
    case.store(y.dims(), &y.flatten_all()?.to_vec1()?)
}

fn model(name: &str, x: &Tensor, weights: VarBuilder) -> case::Result<Sequential> {
    Ok(match name {
        "Matmul" => seq().add(linear_no_bias(x.dim(1)?, x.dim(1)?, weights.pp("linear1"))?),
        "Mlp" => mlp(weights)?,
        "LeNet" => lenet(weights)?,
        "ResNet50" => residual::resnet50(weights)?,
        "Softmax" => seq().add_fn(ops::softmax_last_dim),
        "LayerNorm" => seq().add(layer_norm(x.dim(1)?, 1e-5, weights.pp("layer_norm1"))?),
        "Gelu" => seq().add(Activation::Gelu),
        "Lstm" => sequence::lstm(weights)?,
        "Encoder" => sequence::encoder(weights)?,
        "Attention" => seq().add_fn(|x| sequence::attention_of_one(x, false)),
        "Causal" => seq().add_fn(|x| sequence::attention_of_one(x, true)),
        _ => return Err(format!("candle has no model `{name}`").into()),
    })
}

fn mlp(weights: VarBuilder) -> Result<Sequential> {
    Ok(seq()
        .add(linear(784, 512, weights.pp("linear1"))?)
        .add(Activation::Relu)
        .add(linear(512, 512, weights.pp("linear2"))?)
        .add(Activation::Relu)
        .add(linear(512, 10, weights.pp("linear3"))?))
}

fn lenet(weights: VarBuilder) -> Result<Sequential> {
    let padded = Conv2dConfig { padding: 2, ..Default::default() };
    Ok(seq()
        .add(conv2d(1, 6, 5, padded, weights.pp("conv1"))?)
        .add(Activation::Relu)
        .add_fn(|x| x.max_pool2d(2))
        .add(conv2d(6, 16, 5, Default::default(), weights.pp("conv2"))?)
        .add(Activation::Relu)
        .add_fn(|x| x.max_pool2d(2)?.flatten_from(1))
        .add(linear(400, 120, weights.pp("linear1"))?)
        .add(Activation::Relu)
        .add(linear(120, 84, weights.pp("linear2"))?)
        .add(Activation::Relu)
        .add(linear(84, 10, weights.pp("linear3"))?))
}
