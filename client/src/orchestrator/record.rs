//! A payload as it is written: its keys, in their order. Its schema is `docs/schema/context-payload.schema.json`.

use std::{collections::BTreeMap, io};

use serde::Serialize;
use serde_json::ser::Formatter;

/// The version of the payload's form.
pub(super) const VERSION: &str = "1.0";

#[derive(Clone, Default, Serialize)]
pub(super) struct Record {
    pub(super) handoff_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<&'static str>,
    pub(super) summary: Summary,
    pub(super) active: Vec<Active>,
    pub(super) failed: Vec<Failed>,
    pub(super) next: Vec<Next>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) execution_state: Option<ExecutionState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) critical_context: Option<CriticalContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dag_snapshot: Option<DagSnapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_state: Option<Vec<File>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) environment: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct Summary {
    pub(super) level: &'static str,
    pub(super) project: String,
    pub(super) current_phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) goal: Option<String>,
    pub(super) progress: String,
    pub(super) tasks_complete: usize,
    pub(super) tasks_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resume_point: Option<String>,
    pub(super) generated_at: String,
    pub(super) state_updated_at: String,
    pub(super) tokens: Tokens,
    /// How many of each the level had no room or no key for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) left_out: BTreeMap<&'static str, usize>,
    /// Texts that end in `…` because they were longer.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) shortened: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Clone, Default, Serialize)]
pub(super) struct Tokens {
    pub(super) estimate: u64,
    pub(super) budget: u64,
    pub(super) method: &'static str,
}

#[derive(Clone, Serialize)]
pub(super) struct Active {
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) assignee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_subtask: Option<String>,
}

#[derive(Clone, Serialize)]
pub(super) struct Failed {
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempts: Option<u64>,
}

/// What somebody wrote down as the next step, or a task that can begin.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Next {
    Step {
        step: String,
    },
    Task {
        id: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        title: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<&'static str>,
    },
}

#[derive(Clone, Default, Serialize)]
pub(super) struct ExecutionState {
    pub(super) phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_steps: Option<u64>,
    /// Tasks by their status.
    pub(super) tasks: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct CriticalContext {
    pub(super) constraints: Vec<String>,
    pub(super) facts: Vec<String>,
    pub(super) decisions: Vec<String>,
    pub(super) open_items: Vec<String>,
    pub(super) preferences: Vec<String>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct DagSnapshot {
    pub(super) tasks: usize,
    pub(super) edges: usize,
    pub(super) ready: usize,
    /// What is neither over nor being worked on, and what each waits for.
    pub(super) waiting: Vec<Node>,
}

#[derive(Clone, Serialize)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) waits_for: Vec<String>,
}

#[derive(Clone, Serialize)]
pub(super) struct File {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// One entry a line, and what an entry holds on its line: to read, and without the tokens that indenting costs.
pub(super) fn text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Lines::default());
    value.serialize(&mut serializer)?;
    bytes.push(b'\n');
    // A serializer of JSON writes UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Breaks the two outer objects, and lists of the three outer levels.
#[derive(Debug, Default)]
struct Lines {
    /// Whether each value that is open is broken into lines.
    open: Vec<bool>,
    has_value: bool,
}

impl Lines {
    fn begin<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        sign: &[u8],
        most: usize,
    ) -> io::Result<()> {
        self.open.push(self.open.len() < most);
        self.has_value = false;
        writer.write_all(sign)
    }

    fn end<W: ?Sized + io::Write>(&mut self, writer: &mut W, sign: &[u8]) -> io::Result<()> {
        let is_broken = self.open.pop().unwrap_or(false);
        if is_broken && self.has_value {
            self.line(writer)?;
        }
        self.has_value = true;
        writer.write_all(sign)
    }

    fn value<W: ?Sized + io::Write>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        let is_broken = self.open.last().copied().unwrap_or(false);
        match (is_first, is_broken) {
            (true, false) => return Ok(()),
            (false, false) => return writer.write_all(b", "),
            (true, true) => {}
            (false, true) => writer.write_all(b",")?,
        }
        self.line(writer)
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        self.open.iter().try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[", 3)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.value(writer, is_first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{", 2)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.value(writer, is_first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_on_one_line_each() {
        let value = serde_json::json!({
            "a": [{ "id": "t1", "of": [1, 2] }, { "id": "t2" }], "b": { "c": ["x"], "d": {} }, "e": []
        });
        let want = "{\n  \"a\": [\n    {\"id\": \"t1\", \"of\": [1, 2]},\n    {\"id\": \"t2\"}\n  ],\n  \"b\": {\n    \"c\": [\n      \"x\"\n    ],\n    \"d\": {}\n  },\n  \"e\": []\n}\n";
        assert_eq!(text(&value).unwrap(), want);
    }
}
