//! Models of sequences.

use candle_core::{DType, IndexOp, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::rnn::{LSTMConfig, RNN};
use candle_nn::{LayerNorm, Linear, Module, Sequential, VarBuilder, layer_norm, linear, seq};

/// Two recurrent layers.
pub fn lstm(weights: VarBuilder) -> Result<Sequential> {
    let mut layers = seq();
    for layer_idx in 0..2 {
        let config = LSTMConfig { layer_idx, ..Default::default() };
        let layer = candle_nn::lstm(256, 256, config, weights.pp("lstm1"))?;
        layers = layers.add_fn(move |x| layer.states_to_tensor(&layer.seq(x)?));
    }
    Ok(layers)
}

/// Of queries, keys and values, each of shape [batch, steps, heads, width], as is the result.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Result<Tensor> {
    let heads_first = |x: &Tensor| x.transpose(1, 2)?.contiguous();
    let (q, k, v) = (heads_first(q)?, heads_first(k)?, heads_first(v)?);
    let (steps, width) = (q.dim(2)?, q.dim(3)?);
    let mut scores = (q.matmul(&k.t()?)? / (width as f64).sqrt())?;
    if causal {
        let seen = Tensor::tril2(steps, DType::U8, q.device())?.broadcast_as(scores.shape())?;
        let never = Tensor::new(f32::NEG_INFINITY, q.device())?.broadcast_as(scores.shape())?;
        scores = seen.where_cond(&scores, &never)?;
    }
    softmax_last_dim(&scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()
}

/// Queries, keys and values are in one tensor.
pub fn attention_of_one(x: &Tensor, causal: bool) -> Result<Tensor> {
    attention(&x.i(0..1)?, &x.i(1..2)?, &x.i(2..3)?, causal)
}

/// A layer of PyTorch's `TransformerEncoderLayer`: normalization comes after.
struct EncoderLayer {
    qkv: Linear,
    out: Linear,
    norm1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm2: LayerNorm,
}

impl EncoderLayer {
    fn new(weights: VarBuilder) -> Result<Self> {
        let heads = weights.pp("self_attn");
        let qkv = heads.get((2304, 768), "in_proj_weight")?;
        let bias = heads.get(2304, "in_proj_bias")?;
        Ok(Self {
            qkv: Linear::new(qkv, Some(bias)),
            out: linear(768, 768, heads.pp("out_proj"))?,
            norm1: layer_norm(768, 1e-5, weights.pp("norm1"))?,
            linear1: linear(768, 3072, weights.pp("linear1"))?,
            linear2: linear(3072, 768, weights.pp("linear2"))?,
            norm2: layer_norm(768, 1e-5, weights.pp("norm2"))?,
        })
    }
}

impl Module for EncoderLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, steps, width) = x.dims3()?;
        let qkv = self.qkv.forward(x)?.reshape((batch, steps, 3, 12, 64))?;
        let part = |k| qkv.i((.., .., k))?.contiguous();
        let found = attention(&part(0)?, &part(1)?, &part(2)?, false)?;
        let found = self.out.forward(&found.reshape((batch, steps, width))?)?;
        let h = self.norm1.forward(&(x + found)?)?;
        let inner = self.linear1.forward(&h)?.gelu_erf()?;
        self.norm2.forward(&(&h + self.linear2.forward(&inner)?)?)
    }
}

pub fn encoder(weights: VarBuilder) -> Result<Sequential> {
    let layers = weights.pp("layers");
    (0..4).try_fold(seq(), |all, k| Ok(all.add(EncoderLayer::new(layers.pp(k))?)))
}
