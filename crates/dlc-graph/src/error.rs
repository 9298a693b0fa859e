//! Why an operation has no type.

/// A rule of an operation that its operands break. Carries no position: who builds the graph knows
/// where the operation was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ShapeError {
    /// What is wrong, with the shapes: one line, no full stop.
    pub message: String,
    /// What would fit, if there is something to say.
    pub help: Option<String>,
}

impl ShapeError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> ShapeError {
        ShapeError { message: message.into(), help: None }
    }

    /// The same error with advice.
    pub fn help(self, help: impl Into<String>) -> ShapeError {
        ShapeError { help: Some(help.into()), ..self }
    }
}
