//! Random small kernels against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/random.rs"]
mod shared;
