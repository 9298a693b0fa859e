//! Tests of the kernel IR through its public face: scalar semantics, index and size algebra, the
//! interpreter, the verifier, places, the printer and the planner.

#[path = "../shared/attention.rs"]
mod attention;
#[path = "../shared/draft.rs"]
mod draft;

mod algebra;
mod build;
mod cost;
mod eval;
mod place;
mod plan;
mod print;
mod region;
mod scalar;
mod size;
mod tensor;
mod verify;
