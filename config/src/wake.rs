//! `[[wakes]]`: how the members of rings are woken from here.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use crate::error::{Error, Problem};
use crate::layer::{Source, read_table};
use crate::rule::{names, path, text};
use crate::section::{Section, keyed};

/// As many as the members of a ring, several times over.
const MOST: usize = 256;

/// One `[[wakes]]` entry: what wakes an agent that is to take over a ring and is not connected. Nobody but this file
/// names what is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wake {
    /// The agent's name.
    pub agent: String,
    /// A program and its arguments, run without a shell. It learns who is woken and why from BROKER_WAKE_ROLE,
    /// BROKER_WAKE_FROM, BROKER_WAKE_TO, BROKER_WAKE_REASON and BROKER_WAKE_AT. Default: none.
    pub command: Vec<String>,
    /// A file that is written with the same as JSON, in one step and readable by its owner only. Default: none.
    pub file: Option<PathBuf>,
}

keyed!(Wake ["wakes"] {
    agent: text("an agent's name", agent);
    command: names("a list: the program and its arguments");
    file: path();
});

/// The entries of a file.
pub(crate) fn read_wakes(
    source: Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Wake>, Error> {
    let want = "a list of tables, written [[wakes]]";
    let refuse = |item: &Spanned<DeValue<'_>>| {
        Error::invalid(source.place(item), "wakes", Problem::wrong_type(want, item.get_ref()))
    };
    let items = value.get_ref().as_array().ok_or_else(|| refuse(value))?;
    if items.len() > MOST {
        let want = format!("at most {MOST} entries");
        return Err(Error::invalid(source.place(value), "wakes", Problem::Rejected { want }));
    }
    let mut wakes: Vec<Wake> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = source.place(item);
        let table = item.get_ref().as_table().ok_or_else(|| refuse(item))?;
        let mut wake = Wake::default();
        let label = format!("wakes[{index}]");
        read_table(&mut wake, source, table, "[[wakes]]", &label)?;
        if wake.agent.is_empty() {
            return Err(Error::invalid(place, label, Problem::Missing { key: "agent" }));
        }
        if wake.command.is_empty() && wake.file.is_none() {
            return Err(Error::invalid(place, label, Problem::Missing { key: "command" }));
        }
        if wakes.iter().any(|other| other.agent == wake.agent) {
            let problem = Problem::Duplicate { name: label, first: "set above".to_owned() };
            return Err(Error::invalid(place, "wakes", problem));
        }
        wakes.push(wake);
    }
    Ok(wakes)
}

impl Wake {
    pub(crate) fn write_toml(&self, text: &mut String) {
        text.push_str("\n[[wakes]]\n");
        self.write_into(text);
    }
}

/// As the broker reads an agent's name.
fn agent(text: &str) -> Option<String> {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let is_name =
        !text.starts_with('.') && (1..=64).contains(&text.len()) && text.bytes().all(is_allowed);
    is_name.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use crate::{Config, Error, Loader};

    fn load(text: &str) -> Result<Config, String> {
        Loader::new().text("mine.toml", text).load().map_err(|error| error.to_string())
    }

    const PC2: &str = "[[wakes]]\nagent = \"pc2\"\ncommand = [\"ssh\", \"pc2\", \"wake\"]\n";

    #[test]
    fn wakes_are_read_and_written_back() {
        let text = format!("{PC2}[[wakes]]\nagent = \"pc3\"\nfile = \"/run/wake/pc3.json\"\n");
        let config = load(&text).unwrap();
        assert_eq!(config.wakes.len(), 2);
        assert_eq!(config.wakes[0].command, ["ssh", "pc2", "wake"]);
        assert_eq!(load(&config.to_toml()).unwrap(), config);
        assert!(Config::shipped().unwrap().wakes.is_empty());
    }

    #[test]
    fn what_a_woken_program_learns_is_no_setting() {
        let learns = [("BROKER_WAKE_AT", "x"), ("BROKER_WAKE_REASON", "y")];
        assert!(Loader::new().env(learns).load().is_ok());
        assert!(Loader::new().env([("BROKER_WAKES_AT", "x")]).load().is_err());
    }

    #[test]
    fn a_file_that_others_can_write_names_no_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let load = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Loader::new().file(&path).load()
        };
        assert!(load(PC2, 0o644).is_ok());
        for mode in [0o664, 0o646] {
            let error = load(PC2, mode).unwrap_err();
            assert!(matches!(error, Error::Unsafe { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("can be written by others"), "{error}");
        }
        // A file that is only written is nobody's program.
        let file = "[[wakes]]\nagent = \"pc3\"\nfile = \"/run/wake/pc3.json\"\n";
        assert!(load(file, 0o664).is_ok());
    }

    #[test]
    fn a_wake_that_says_too_little_or_nonsense_is_refused_with_its_place() {
        let said = |text: &str| load(text).unwrap_err();
        assert!(said("[[wakes]]\ncommand = [\"x\"]\n").contains("`agent` is missing"));
        assert!(said("[[wakes]]\nagent = \"pc2\"\n").contains("`command` is missing"));
        assert!(
            said(&PC2.replace("\"pc2\"\ncommand", "\"PC 2\"\ncommand")).contains("mine.toml:2")
        );
        assert!(said(&format!("{PC2}{PC2}")).contains("already set above"));
    }
}
