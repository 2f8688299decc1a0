//! The user's own file, as text: made of what was found.

use broker_config::{Handoff, Thresholds};

use super::found::Candidate;

/// The models that may receive sessions: those that were found; none means all, since nothing is known yet.
pub(super) fn receivers(found: &[Candidate]) -> Vec<&str> {
    found.iter().filter(|model| model.is_found).map(|model| model.name.as_str()).collect()
}

/// The model of this machine that takes a session when nobody else can.
pub(super) fn fallback(found: &[Candidate]) -> Option<&Candidate> {
    found.iter().rfind(|model| model.is_found && model.is_local)
}

/// The file. `day` is for people.
pub(super) fn text(found: &[Candidate], day: &str) -> String {
    let Handoff { auto, auto_switch, .. } = Handoff::default();
    let Thresholds { session_warning, session_switch, .. } = Thresholds::default();
    let receivers = receivers(found);
    let (there, missing): (Vec<&Candidate>, _) = found.iter().partition(|model| model.is_found);
    let mut text = format!(
        "# Settings of your own, written by `brokerctl handoff init` on {day}. Change what you like.\n\
         # `brokerctl up`, `brokerctl doctor` and `brokerd` read them over the shipped ones, when they start; a file given with\n\
         # --config, BROKER_ variables and flags count over them. `brokerctl handoff config` changes a running broker.\n\
         \n\
         [handoff]\n\
         # The models that may receive a session; []: all.\n"
    );
    for model in &there {
        text.push_str(&format!("#   {}: {}\n", model.name, model.detail));
    }
    if !missing.is_empty() {
        text.push_str("# Not found, to be added here once they are there:\n");
    }
    for model in &missing {
        let remedy = model.remedy.as_ref().unwrap_or(&model.detail);
        text.push_str(&format!("#   {}: {remedy}\n", model.name));
    }
    text.push_str(&format!("receivers = {receivers:?}\n"));
    text.push_str(&match fallback(found) {
        Some(local) => format!(
            "# The local fallback is `{}`: it takes a session when nobody else can.\n",
            local.name
        ),
        None => {
            "# There is no local fallback: when nobody else can, a session waits for its model.\n"
                .to_owned()
        }
    });
    text.push_str(&format!(
        "# Sessions move by themselves: at a limit of their model, and at their own with their next turn.\n\
         auto = {auto}\n\
         # true: a session moves the moment its own limit is reached, and what is only recommended is carried out.\n\
         auto_switch = {auto_switch}\n\
         # How much of a conversation is handed over: \"minimal\", \"standard\", \"full\" or \"complete\".\n\
         preserve = \"complete\"\n\
         \n\
         [thresholds]\n\
         # Percent of its model's window at which a session is warned of, and moved.\n\
         session_warning = {session_warning}\n\
         session_switch = {session_switch}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use broker_config::{Config, Loader};

    use super::*;

    fn model(name: &str, is_found: bool) -> Candidate {
        Candidate {
            name: name.into(),
            provider: "p".into(),
            is_found,
            is_local: name == "local",
            detail: "D".into(),
            remedy: (!is_found).then(|| format!("set a key for {name}")),
        }
    }

    fn load(text: &str) -> Config {
        Loader::new().local().text("config.toml", text).load().unwrap()
    }

    #[test]
    fn the_file_names_what_was_found_and_is_otherwise_what_is_shipped() {
        let found = [model("opus", true), model("gpt-4o", false), model("local", true)];

        let text = text(&found, "2026-11-21");

        let shipped = Config::shipped().unwrap();
        let mut config = load(&text);
        assert_eq!(config.handoff.receivers, ["opus", "local"]);
        config.handoff.receivers.clear();
        assert_eq!(config, shipped);
        assert!(text.contains("#   gpt-4o: set a key for gpt-4o\n"), "{text}");
        assert!(text.contains("local fallback is `local`"), "{text}");
    }

    #[test]
    fn without_any_model_all_may_receive_and_the_file_says_what_helps() {
        let found = [model("opus", false), model("local", false)];
        let text = text(&found, "2026-11-21");
        assert_eq!(load(&text), Config::shipped().unwrap());
        assert!(text.contains("receivers = []\n# There is no local fallback"), "{text}");
        assert!(text.contains("#   opus: set a key for opus\n"), "{text}");
    }
}
