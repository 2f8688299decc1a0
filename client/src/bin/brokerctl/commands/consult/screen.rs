//! What a person sees of an answer: text on stdout as it comes, the story on stderr.

use std::io::IsTerminal as _;

use broker_proto::types::{Part, Terminal};

use super::{
    follow::Step,
    now,
    reading::Event,
    report::{Owner, Report},
    story,
};
use crate::{
    cli::Global,
    output::{self, Format},
};

/// Shows one answer.
#[derive(Debug)]
pub(crate) struct Screen {
    story: story::Story,
    format: Format,
    is_verbose: bool,
    is_shown_at_end: bool,
    /// Whether the text on stdout stands in the middle of a line.
    is_mid_line: bool,
    is_mid_thought: bool,
}

impl Screen {
    pub(crate) fn new(global: &Global, asked: &str, is_shown_at_end: bool) -> Self {
        Self {
            story: story::Story::begin(asked, global.verbose),
            format: global.output,
            is_verbose: global.verbose,
            is_shown_at_end,
            is_mid_line: false,
            is_mid_thought: false,
        }
    }

    /// Shows a step.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub(crate) fn show(&mut self, step: Step) -> Result<(), output::Error> {
        match step {
            Step::Frame(event) => self.event(event)?,
            Step::Broken(err) => {
                // The text goes on where it stopped: a line end would become part of the answer.
                if self.is_mid_line && std::io::stdout().is_terminal() {
                    output::mutter("\n");
                }
                self.story.say(&format!("{err}; coming back to the answer"));
            }
            Step::Back => self.story.say("the broker is back"),
        }
        Ok(())
    }

    pub(crate) fn is_for_programs(&self) -> bool {
        self.format == Format::Json
    }

    /// Takes the spinner away.
    pub(crate) fn quiet(&mut self) {
        self.story.quiet();
    }

    fn event(&mut self, event: Event) -> Result<(), output::Error> {
        match event {
            Event::Accepted { is_duplicate: true } => {
                self.story.say("this message was asked before: the same answer follows");
            }
            Event::Accepted { is_duplicate: false } | Event::Ended => {}
            Event::Routed(routed) => self.story.routed(&routed, now()),
            Event::Text(text) => self.text(&text)?,
            Event::Thinking(text) => self.thinking(&text),
            Event::Whole(part) => self.whole(&part),
            Event::Anew { attempt, to, reason, had_text } => {
                self.break_line()?;
                let who = to.map_or_else(String::new, |model| format!(" on {model}"));
                let anew = if had_text && !self.is_shown_at_end {
                    "what was shown above no longer counts, the answer begins anew"
                } else {
                    "beginning anew"
                };
                self.story.say(&format!("--- attempt {attempt}{who}: {reason}; {anew} ---"));
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), output::Error> {
        if self.is_shown_at_end {
            return Ok(());
        }
        self.story.quiet();
        self.end_thought();
        output::text(text)?;
        self.is_mid_line = !text.ends_with('\n');
        Ok(())
    }

    fn thinking(&mut self, text: &str) {
        if self.is_verbose {
            self.story.quiet();
            output::mutter(text);
            self.is_mid_thought = !text.ends_with('\n');
        }
    }

    fn whole(&mut self, part: &Part) {
        match part {
            Part::ToolCall { name, arguments, .. } => {
                let arguments = String::from_utf8_lossy(arguments);
                self.story.say(&format!("the model calls {name} {arguments}"));
            }
            other => {
                self.story.whisper(&format!("the answer holds a part that is no text: {other:?}"))
            }
        }
    }

    fn end_thought(&mut self) {
        if std::mem::take(&mut self.is_mid_thought) {
            output::mutter("\n");
        }
    }

    fn break_line(&mut self) -> Result<(), output::Error> {
        self.end_thought();
        if std::mem::take(&mut self.is_mid_line) {
            output::text("\n")?;
        }
        Ok(())
    }

    /// Shows how it ended; the answer too, where it was not shown yet. `owner` is told to programs only.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub(crate) fn finish(
        mut self,
        terminal: &Terminal,
        answer: String,
        owner: Option<&Owner>,
    ) -> Result<(), output::Error> {
        self.story.quiet();
        if self.is_shown_at_end && self.format == Format::Text && !answer.is_empty() {
            output::text(&answer)?;
            self.is_mid_line = !answer.ends_with('\n');
        }
        self.break_line()?;
        for line in self.story.ending(terminal, now()) {
            self.story.say(&line);
        }
        if self.format == Format::Json {
            let owner = owner.map(Owner::json);
            output::json(&Report { owner, ..Report::of(terminal, answer) })?;
        }
        Ok(())
    }
}
