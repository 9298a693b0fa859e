//! Libraries of matrix products, at the model `Matmul`: `x @ transpose(weight)` of square matrices.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use safetensors::SafeTensors;

use crate::case::{Case, Result, timed};

/// A product into `y`, of `x` and the transpose of `weight`, all of `n` rows of `n`.
type Product = fn(n: usize, threads: usize, x: &[f32], weight: &[f32], y: &mut [f32]);

pub fn measure(case: &Case, product: Product) -> Result<()> {
    let (input, weights) = (case.tensors("x")?, case.tensors("w")?);
    let input = SafeTensors::deserialize(&input)?;
    let view = input.tensor("x")?;
    let x: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
    let weights = SafeTensors::deserialize(&weights)?;
    let weight: Vec<f32> = bytemuck::pod_collect_to_vec(weights.tensor("linear1.weight")?.data());
    let n = view.shape()[0];
    let mut y = vec![0.0; n * n];
    assert!(case.model == "Matmul" && x.len() == y.len() && weight.len() == y.len());
    timed(|| {
        product(n, case.threads, &x, &weight, &mut y);
        Ok(())
    })?;
    case.store(&[n, n], &y)
}

pub fn gemm(n: usize, threads: usize, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    let (row, column) = (n as isize, 1);
    let (y, x, weight) = (y.as_mut_ptr(), x.as_ptr(), weight.as_ptr());
    // SAFETY: `measure` gives n * n values of each, which these strides stay in; `y` is apart.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            y,
            column,
            row,
            false,
            x,
            column,
            row,
            weight,
            row,
            column,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

pub fn faer(n: usize, threads: usize, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let par = if threads > 1 { Par::rayon(threads) } else { Par::Seq };
    let y = MatMut::from_row_major_slice_mut(y, n, n);
    let x = MatRef::from_row_major_slice(x, n, n);
    let transposed = MatRef::from_column_major_slice(weight, n, n);
    matmul(y, Accum::Replace, x, transposed, 1.0, par);
}

/// By way of `ndarray`, which leaves out AVX-512; threads are those of `MATMUL_NUM_THREADS`.
pub fn matrixmultiply(n: usize, _: usize, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let square = |values| ArrayView2::from_shape((n, n), values).expect("n * n values");
    let mut y = ArrayViewMut2::from_shape((n, n), y).expect("n * n values");
    general_mat_mul(1.0, &square(x), &square(weight).t(), 0.0, &mut y);
}
