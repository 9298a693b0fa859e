//! A kernel's body as one list of steps, so that a warp can stop at a barrier and go on later.

use crate::ir::{Guard, Inst, Pred, Stmt};

/// A step of a warp.
#[derive(Clone, Debug)]
pub enum Step {
    /// An instruction.
    Inst(Option<Guard>, Inst),
    /// Lanes where `pred` fails wait; if none is left, goes on at `other`.
    If { pred: Pred, other: usize },
    /// The lanes that waited take over, those before are done; if there is none, goes on at `end`.
    Else { end: usize },
    /// All lanes that came to the `If` go on.
    EndIf,
    /// Remembers who comes into a loop.
    Enter,
    /// Lanes where `pred` holds go back to `top`; if none does, all that came in go on.
    Repeat { pred: Pred, top: usize },
}

/// The steps of a body.
pub fn flatten(body: &[Stmt]) -> Vec<Step> {
    let mut steps = Vec::new();
    append(&mut steps, body);
    steps
}

fn append(steps: &mut Vec<Step>, body: &[Stmt]) {
    for stmt in body {
        match stmt {
            Stmt::Comment(_) => {}
            Stmt::Inst(guard, inst) => steps.push(Step::Inst(*guard, inst.clone())),
            Stmt::If { pred, then, other } => {
                let start = steps.len();
                steps.push(Step::If { pred: *pred, other: 0 });
                append(steps, then);
                let middle = steps.len();
                steps.push(Step::Else { end: 0 });
                append(steps, other);
                let end = steps.len();
                steps.push(Step::EndIf);
                steps[start] = Step::If { pred: *pred, other: middle };
                steps[middle] = Step::Else { end };
            }
            Stmt::Loop { body, pred } => {
                steps.push(Step::Enter);
                let top = steps.len();
                append(steps, body);
                steps.push(Step::Repeat { pred: *pred, top });
            }
        }
    }
}
