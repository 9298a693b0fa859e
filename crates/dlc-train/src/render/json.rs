//! One JSON object per event and line, for programs.

use crate::event::{Event, Observer};
use std::io::Write;

/// Writes every event as a line of JSON: `{"event":"epoch","epoch":1,...}`. Numbers that are not
/// finite become null. Errors of the writer are ignored.
pub struct JsonLines {
    out: Box<dyn Write + Send>,
}

impl JsonLines {
    /// Lines go to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> JsonLines {
        JsonLines { out }
    }
}

impl Observer for JsonLines {
    fn observe(&mut self, event: &Event<'_>) {
        let text = serde_json::to_string(event).unwrap_or_else(|error| {
            serde_json::json!({ "event": "note", "message": error.to_string() }).to_string()
        });
        let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }
}
