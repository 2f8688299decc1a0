//! `brokerd` with a bug in it, which `PLANTED_BUG` names: what the judge of `broker-faults` is judged by.

#[path = "../main.rs"]
mod brokerd;

fn main() -> std::process::ExitCode {
    if let Ok(bug) = std::env::var("PLANTED_BUG") {
        assert!(broker::core::planted::plant(&bug), "no bug is named `{bug}`");
    }
    brokerd::main()
}
