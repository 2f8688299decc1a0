//! Rings: whether the next member would come, and whether anybody can work at all.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use broker_client::Client;
use broker_config::{Config, Wake};
use broker_proto::types::{Rotation, RotationMember, RotationPhase, RotationState};

use super::Check;
use crate::commands::rotation::what_helps;

const HOOKS: &str = "rotation hooks";

/// Asks the broker for its rings; none is no check.
pub(super) async fn look(client: &Client) -> Vec<Check> {
    match client.rotations(None).await {
        Ok(rings) => rings.iter().map(ring).collect(),
        Err(err) => {
            let remedy = "the broker may be older than this program: start it again";
            vec![Check::warn("rotation", err.to_string(), remedy)]
        }
    }
}

/// The first thing that keeps a ring from working, or will when its owner hands on.
fn ring(ring: &Rotation) -> Check {
    let (name, role) = (format!("rotation {}", ring.role), &ring.role);
    if ring.state == RotationState::Off {
        return Check::ok(name, "off: every agent of the role takes from its queue");
    }
    if ring.state == RotationState::Stopped {
        return Check::warn(name, format!("stopped: {}", ring.stopped), what_helps(ring));
    }
    if ring.members.iter().all(|member| !member.is_connected) {
        return Check::warn(name, "no member is connected", what_helps(ring));
    }
    let waits = ring.handover.as_ref().filter(|it| it.phase == RotationPhase::Woken);
    if let Some(to) = waits.and_then(|it| it.to.as_ref()) {
        let detail = format!("{to} was woken, and has not linked or gives no credit yet");
        let remedy = format!(
            "look at its log; after rotation.accept_deadline the next one is asked: `brokerctl rotation show --role {role}`"
        );
        return Check::warn(name, detail, remedy);
    }
    let others = || ring.members.iter().filter(|member| !member.is_owner);
    let lost: Vec<&RotationMember> =
        others().filter(|it| !it.is_connected && it.woken_by.is_empty()).collect();
    if !lost.is_empty() {
        let detail = format!("{} not connected, and nothing wakes it", names(&lost));
        let remedy =
            "start it, give it a [[wakes]] entry, or let `broker-agent --standby` stand by for it";
        return Check::warn(name, detail, remedy);
    }
    let shut: Vec<&RotationMember> = others().filter(|it| !it.reason.is_empty()).collect();
    if !shut.is_empty() && shut.len() == others().count() {
        let why: Vec<String> =
            shut.iter().map(|it| format!("{}: {}", it.agent, it.reason)).collect();
        let detail = format!("nobody could take over from the owner: {}", why.join("; "));
        let remedy =
            "fewer tasks at a time, or more members: the owner's next limit stops the ring";
        return Check::warn(name, detail, remedy);
    }
    let owner = ring.owner.as_ref().map_or("nobody", |owner| owner.as_str());
    Check::ok(
        name,
        format!("{owner} works, {} of {} could", others().count() - shut.len(), others().count()),
    )
}

fn names(members: &[&RotationMember]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.agent.as_str()).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// Whether what the configuration runs and writes can be run and written; no entries are no check.
pub(super) fn hooks(config: &Config) -> Option<Check> {
    if config.wakes.is_empty() {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let bad: Vec<String> = config.wakes.iter().filter_map(|wake| problem(wake, &folders)).collect();
    Some(if bad.is_empty() {
        Check::ok(HOOKS, format!("{} members can be woken", config.wakes.len()))
    } else {
        let remedy = "mend the [[wakes]] entry: an absolute path that this user may run, a folder that is there";
        Check::warn(HOOKS, bad.join("; "), remedy)
    })
}

fn problem(wake: &Wake, folders: &[PathBuf]) -> Option<String> {
    let agent = &wake.agent;
    if let Some(program) = wake.command.first() {
        let is_path = program.contains('/');
        let found = match is_path {
            true => Some(PathBuf::from(program)).filter(|path| path.is_file()),
            false => folders.iter().map(|it| it.join(program)).find(|path| path.is_file()),
        };
        match found {
            None => return Some(format!("{agent}: `{program}` is not there")),
            Some(path) if !is_executable(&path) => {
                return Some(format!("{agent}: `{program}` is not executable"));
            }
            Some(_) => {}
        }
    }
    let folder = wake.file.as_ref().and_then(|file| file.parent());
    let missing = folder.filter(|folder| !folder.is_dir())?;
    Some(format!("{agent}: the folder `{}` is not there", missing.display()))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(command: &[&str], file: Option<&Path>) -> Wake {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Wake { agent: "pc2".into(), command, file: file.map(Path::to_owned) }
    }

    #[test]
    fn a_hook_that_cannot_work_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("wake.sh");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let path = script.display().to_string();
        let folders = [folder.path().to_owned()];
        let said = |wake: &Wake| problem(wake, &folders).unwrap_or_default();
        assert_eq!(said(&wake(&[&path], None)), format!("pc2: `{path}` is not executable"));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(said(&wake(&[&path, "--now"], None)), "");
        assert_eq!(said(&wake(&["wake.sh"], None)), "");
        assert_eq!(said(&wake(&["other.sh"], None)), "pc2: `other.sh` is not there");
        assert_eq!(said(&wake(&[], Some(&folder.path().join("pc2.json")))), "");
        let nowhere = folder.path().join("none/pc2.json");
        assert!(said(&wake(&[], Some(&nowhere))).contains("none` is not there"));
    }
}
