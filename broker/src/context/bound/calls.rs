//! Calls and their results in pairs: each call has its result in the next turn, under an id that no other call has.

use std::collections::{HashMap, HashSet};

use broker_proto::Part;

use super::{super::plain::plain_all, Speaker, Turn};

/// What every wire takes as an id is no longer.
const LONGEST_ID: usize = 40;
/// In place of a result that never came.
const NO_RESULT: &str = "No result: the call was not carried out.";

/// A call as it stands in the conversation, and as it will.
struct Call {
    old: String,
    new: String,
}

/// The ids given so far, and which tool an old one called.
#[derive(Default)]
struct Ids {
    used: HashSet<String>,
    tools: HashMap<String, String>,
}

/// Gives every call its result, and turns results without a call into text.
pub(super) fn pair(turns: &mut Vec<Turn>) {
    let mut ids = Ids::default();
    let mut open: Vec<Call> = Vec::new();
    for turn in turns.iter_mut() {
        match turn.speaker {
            Speaker::System => {}
            Speaker::Assistant => open = ids.rename(&mut turn.parts),
            Speaker::User => ids.answer(&std::mem::take(&mut open), &mut turn.parts),
        }
    }
    if !open.is_empty() {
        let mut parts = Vec::new();
        ids.answer(&open, &mut parts);
        turns.push(Turn { speaker: Speaker::User, parts });
    }
}

impl Ids {
    /// Makes the ids of a turn's calls unlike all others.
    fn rename(&mut self, parts: &mut [Part]) -> Vec<Call> {
        let mut calls = Vec::new();
        for part in parts {
            let Part::ToolCall { id, name, .. } = part else { continue };
            let old = id.clone();
            if !is_id(id) || self.used.contains(id) {
                *id = self.unused();
            }
            self.used.insert(id.clone());
            self.tools.insert(old.clone(), name.clone());
            calls.push(Call { old, new: id.clone() });
        }
        calls
    }

    fn unused(&self) -> String {
        let mut number = self.used.len();
        loop {
            let id = format!("call_{number}");
            if !self.used.contains(&id) {
                return id;
            }
            number += 1;
        }
    }

    /// Puts the results of `calls` at the head of a turn, in the order of the calls.
    fn answer(&self, calls: &[Call], parts: &mut Vec<Part>) {
        let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
        let (mut results, others): (Vec<Part>, Vec<Part>) =
            std::mem::take(parts).into_iter().partition(is_result);
        for Call { old, new } in calls {
            let is_its =
                |part: &Part| matches!(part, Part::ToolResult { call_id, .. } if call_id == old);
            let mut result = match results.iter().position(is_its) {
                Some(found) => results.remove(found),
                None => Part::ToolResult {
                    call_id: old.clone(),
                    parts: vec![Part::text(NO_RESULT)],
                    is_error: true,
                },
            };
            if let Part::ToolResult { call_id, .. } = &mut result {
                call_id.clone_from(new);
            }
            parts.push(result);
        }
        parts.extend(results.iter().filter_map(|orphan| self.in_words(orphan)));
        parts.extend(others);
    }

    /// A result whose call is not in the turn before.
    fn in_words(&self, orphan: &Part) -> Option<Part> {
        let Part::ToolResult { call_id, parts, .. } = orphan else { return None };
        let of = self.tools.get(call_id).map_or(String::new(), |tool| format!(" of {tool}"));
        Some(Part::Text(format!("Result of an earlier call{of}:\n{}", plain_all(parts))))
    }
}

fn is_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(is_plain)
}
