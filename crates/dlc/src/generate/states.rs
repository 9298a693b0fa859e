//! What a model keeps from call to call: in which dim of each tensor the sequences are, and copies of
//! what belongs to one of them.

use crate::Error;
use dlc_graph::op::{Op, Source, SourceClass};
use dlc_graph::{Graph, Outcome, Role, Value};
use dlc_kernel::{Data, Executable, RunError, Tensor};

/// The states that a model changes.
pub(super) struct States {
    /// Their names, and the dim of the sequences in each; none where all share it.
    dims: Vec<(String, Option<usize>)>,
    /// Whether calls write what is new in the places that a position says, and nothing else. Then a
    /// sequence may go back to any position it has been at; else only go on from where it is.
    pub are_placed: bool,
}

impl States {
    /// Those of a model for `sequences`, whose position is the input `at`. `more` is the model for one
    /// sequence more: it tells where they are.
    pub fn of(graph: &Graph, more: Option<&Graph>, sequences: usize, at: Option<&str>) -> States {
        let updates = || graph.results().iter().filter(|r| r.role == Role::Update);
        let dim = |r: &Outcome| dim_of(graph, more?, r, sequences);
        let dims = updates().map(|r| (r.name.clone(), dim(r))).collect();
        let is_placed = |r: &Outcome| at.is_some_and(|at| is_placed(graph, r, at));
        States { dims, are_placed: updates().all(is_placed) }
    }

    /// Whether every state tells what belongs to which sequence.
    ///
    /// # Errors
    /// The name of one that does not.
    pub fn require_dims(&self, model: &str) -> Result<(), Error> {
        match self.dims.iter().find(|(_, dim)| dim.is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(Error::Argument(format!(
                "the state `{name}` of `{model}` does not tell what belongs to which sequence: none \
                 of its dims is the number of sequences"
            ))),
        }
    }

    /// Their present values.
    pub fn read(&self, executable: &dyn Executable) -> Result<Vec<Tensor>, RunError> {
        self.dims.iter().map(|(name, _)| executable.read(name)).collect()
    }

    /// Sets all of them.
    pub fn write(&self, executable: &dyn Executable, values: &[Tensor]) -> Result<(), RunError> {
        self.dims.iter().zip(values).try_for_each(|((name, _), v)| executable.write(name, v))
    }

    /// What of the states belongs to one sequence.
    pub fn part(&self, states: &[Tensor], sequence: usize) -> Vec<Tensor> {
        let part = |(state, (_, dim)): (&Tensor, &(String, Option<usize>))| {
            dim.map_or_else(|| state.clone(), |dim| gather(state, dim, &[sequence]))
        };
        states.iter().zip(&self.dims).map(part).collect()
    }

    /// Gives a sequence such parts.
    pub fn put(&self, states: &mut [Tensor], sequence: usize, parts: &[Tensor]) {
        for ((state, part), (_, dim)) in states.iter_mut().zip(parts).zip(&self.dims) {
            match dim {
                Some(dim) => copy_part((part, 0), (state, sequence), *dim),
                None => state.clone_from(part),
            }
        }
    }

    /// States of as many sequences as there are numbers, each with what belongs to that number.
    pub fn gather(&self, states: &[Tensor], numbers: &[usize]) -> Vec<Tensor> {
        let of = |(state, (_, dim)): (&Tensor, &(String, Option<usize>))| {
            gather(state, dim.expect("it tells"), numbers)
        };
        states.iter().zip(&self.dims).map(of).collect()
    }
}

/// The dim of a result that is the number of sequences: the only one that changes with it, in the
/// graph for one `more`.
pub(super) fn dim_of(
    graph: &Graph,
    more: &Graph,
    result: &Outcome,
    sequences: usize,
) -> Option<usize> {
    let same = |r: &&Outcome| r.role == result.role && r.name == result.name;
    let other = more.results().iter().find(same)?;
    let [shape, larger] = [&graph.ty(result.value).shape, &more.ty(other.value).shape];
    let changes = |&dim: &usize| shape[dim] != larger[dim];
    let mut dims = (0..shape.len()).filter(|_| shape.len() == larger.len()).filter(changes);
    let dim = dims.next().filter(|_| dims.next().is_none())?;
    let sizes = [shape, larger].map(|shape| shape[dim].as_const());
    (sizes == [sequences, sequences + 1].map(|n| Some(n as i64))).then_some(dim)
}

/// Whether a state's next value is the old one, overwritten from the position `at` on. The position
/// may have been looked up among those that there are.
fn is_placed(graph: &Graph, update: &Outcome, at: &str) -> bool {
    let source = |value: Value, class: SourceClass, name: &str| {
        matches!(graph.op(value), Op::Source(Source { class: c, name: n, .. })
            if *c == class && **n == *name)
    };
    let Op::Overwrite(_) = graph.op(update.value) else { return false };
    let operands = graph.operands(update.value);
    let start = match graph.op(operands[1]) {
        Op::Gather(_) => {
            let looked_up = graph.operands(operands[1]);
            let is_every = matches!(graph.op(looked_up[0]), Op::Iota(_));
            if is_every { looked_up[1] } else { operands[1] }
        }
        _ => operands[1],
    };
    source(operands[0], SourceClass::State, &update.name) && source(start, SourceClass::Input, at)
}

/// A tensor with those parts of another that `numbers` say, along a dim.
pub(super) fn gather(from: &Tensor, dim: usize, numbers: &[usize]) -> Tensor {
    let mut shape = from.shape.clone();
    shape[dim] = numbers.len();
    let mut to = Tensor::zeros(from.dtype(), shape);
    numbers.iter().enumerate().for_each(|(new, &old)| copy_part((from, old), (&mut to, new), dim));
    to
}

/// Copies one of the parts along a dim to one of another tensor, whose shape differs there only.
fn copy_part((from, old): (&Tensor, usize), (to, new): (&mut Tensor, usize), dim: usize) {
    fn copy<T: Copy>(from: &[T], to: &mut [T], [outer, width, old, of, new, all]: [usize; 6]) {
        for k in 0..outer {
            let part = &from[(k * of + old) * width..][..width];
            to[(k * all + new) * width..][..width].copy_from_slice(part);
        }
    }
    let outer = from.shape[..dim].iter().product();
    let width = from.shape[dim + 1..].iter().product();
    let places = [outer, width, old, from.shape[dim], new, to.shape[dim]];
    match (&from.data, &mut to.data) {
        (Data::F32(from), Data::F32(to)) => copy(from, to, places),
        (Data::I32(from), Data::I32(to)) => copy(from, to, places),
        (Data::U8(from), Data::U8(to)) | (Data::Bool(from), Data::Bool(to)) => {
            copy(from, to, places);
        }
        _ => unreachable!("models compute in f32, i32, u8 and bool"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compiler;
    use dlc_kernel::Bindings;

    const MODELS: &str = "
      model Library(x: f32[N, T, 4], at: i32[N]) -> f32[N, 9, 4] { x |> remember(9, at) }
      model Grown(x: f32[N, T, 4], at: i32[]) -> f32[2, N, 4] {
        state h = zeros[2, N, 4]
        _, last = x |> gru(4, layers = 2, states = yes, h0 = h if at > 0 else 0)
        h <- last
        last
      }
      model Ring(x: f32[N, T, 4], at: i32[]) -> f32[N, 9, 4] {
        state rows: [N, 9, 4] = 0
        y = overwrite[1](rows, at % 8, x)
        rows <- y
        y
      }
      model Shared(x: f32[N, T, 4], at: i32[]) -> f32[N, T, 4] {
        state calls = 0.0
        calls <- calls + 1
        x * calls
      }";

    fn states(model: &str) -> States {
        let module = Compiler::new().compile_text("m.dl", MODELS).unwrap();
        let graph = |n| {
            let sizes = Bindings::from([("T".into(), 1), ("N".into(), n)]);
            module.model(model).unwrap().elaborate(&sizes).unwrap().0.graph
        };
        States::of(&graph(3), Some(&graph(4)), 3, Some("at"))
    }

    #[test]
    fn what_is_overwritten_at_the_position_is_placed() {
        let placed = ["Library", "Grown", "Ring"].map(|model| states(model).are_placed);
        assert_eq!(placed, [true, false, false]);
    }

    #[test]
    fn sequences_are_found_in_any_dim() {
        let dims = |model| states(model).dims.iter().map(|(_, dim)| *dim).collect::<Vec<_>>();
        assert_eq!(["Library", "Grown", "Shared"].map(dims), [[Some(0)], [Some(1)], [None]]);
        let error = states("Shared").require_dims("Shared").unwrap_err().to_string();
        assert!(error.contains("`calls` of `Shared` does not tell"), "{error}");
    }

    #[test]
    fn parts_are_copied_along_their_dim() {
        let x = Tensor::i32([2, 3, 2], (0..12).collect());
        let y = gather(&x, 1, &[2, 0]);
        assert_eq!(y, Tensor::i32([2, 2, 2], vec![4, 5, 0, 1, 10, 11, 6, 7]));
    }
}
