//! Contractions.

pub mod direct;
