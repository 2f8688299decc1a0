//! `brokerd` with a bug in it, which `PLANTED_BUG` names: what the judge of `broker-faults` is judged by.

#[path = "../main.rs"]
mod brokerd;

fn main() -> std::process::ExitCode {
    brokerd::main()
}
