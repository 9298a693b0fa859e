//! The instruction IR: what is printed assembles, what is verified is caught, and what is
//! interpreted is what the instructions are defined to do.

mod every;
mod faults;
mod machine;
mod matrix;
#[path = "../support/ptxas.rs"]
mod ptxas;
mod single;
mod text;
mod verify;
