//! ResNet-50, with torchvision's names. Batch normalization goes into the convolution before it.

use candle_core::{D, Result, Tensor};
use candle_nn::{
    Activation, Conv2d, Conv2dConfig, Module, Sequential, VarBuilder, batch_norm, conv2d_no_bias,
    linear, seq,
};

/// A convolution and the normalization after it.
struct Names<'a>(&'a str, &'a str);

fn conv(
    channels: usize,
    filters: usize,
    size: usize,
    stride: usize,
    weights: &VarBuilder,
    names: Names,
) -> Result<Conv2d> {
    let config = Conv2dConfig { padding: size / 2, stride, ..Default::default() };
    let conv = conv2d_no_bias(channels, filters, size, config, weights.pp(names.0))?;
    conv.absorb_bn(&batch_norm(filters, 1e-5, weights.pp(names.1))?)
}

struct Bottleneck {
    convs: Sequential,
    skip: Option<Conv2d>,
}

impl Bottleneck {
    fn new(channels: usize, middle: usize, stride: usize, weights: VarBuilder) -> Result<Self> {
        let filters = 4 * middle;
        let convs = seq()
            .add(conv(channels, middle, 1, 1, &weights, Names("conv1", "bn1"))?)
            .add(Activation::Relu)
            .add(conv(middle, middle, 3, stride, &weights, Names("conv2", "bn2"))?)
            .add(Activation::Relu)
            .add(conv(middle, filters, 1, 1, &weights, Names("conv3", "bn3"))?);
        let names = Names("downsample.0", "downsample.1");
        let changes = stride > 1 || channels != filters;
        let skip = changes.then(|| conv(channels, filters, 1, stride, &weights, names));
        Ok(Self { convs, skip: skip.transpose()? })
    }
}

impl Module for Bottleneck {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.convs.forward(x)?;
        match &self.skip {
            Some(skip) => (y + skip.forward(x)?)?.relu(),
            None => (y + x)?.relu(),
        }
    }
}

/// A maximum is not changed by values of the edge seen twice, so they may stand for the padding.
fn max_pool(x: &Tensor) -> Result<Tensor> {
    let padded = x.pad_with_same(D::Minus1, 1, 1)?.pad_with_same(D::Minus2, 1, 1)?;
    padded.max_pool2d_with_stride(3, 2)
}

pub fn resnet50(weights: VarBuilder) -> Result<Sequential> {
    let first = conv(3, 64, 7, 2, &weights, Names("conv1", "bn1"))?;
    let mut layers = seq().add(first).add(Activation::Relu).add_fn(max_pool);
    let mut channels = 64;
    for (stage, count) in [3, 4, 6, 3].into_iter().enumerate() {
        let middle = 64 << stage;
        for block in 0..count {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let weights = weights.pp(format!("layer{}.{block}", stage + 1));
            layers = layers.add(Bottleneck::new(channels, middle, stride, weights)?);
            channels = 4 * middle;
        }
    }
    let pooled = layers.add_fn(|x| x.mean((D::Minus2, D::Minus1)));
    Ok(pooled.add(linear(channels, 1000, weights.pp("fc"))?))
}
