//! Contractions.
//!
//! [`direct`] computes one point of the result in each thread. [`tiled`] computes a tile in each
//! block: [`fill`] brings words of both factors into shared memory, or [`pack`] has put them into a
//! workspace in a launch before, from where they are copied; [`multiply`] multiplies them
//! there, and [`finish`] makes the stores; where the sum is split between blocks, the parts go
//! through a workspace.

pub mod direct;
pub mod fill;
pub mod finish;
pub mod multiply;
pub mod pack;
pub mod tiled;
