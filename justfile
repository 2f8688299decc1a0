# The commands people and CI run. `just` lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

default:
    @just --list

# Formatting and lints as CI sees them, fast.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The API documentation without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The protocol against buf's standard rules.
lint-proto:
    .ci/buf-lint

# Installs what the tests need and runs them all.
test:
    .ci/test

# The adapters and the house against a real inference engine.
real:
    .ci/real

# Every figure beside its limit. `just bench --quick` ends within three minutes, all of it takes twenty.
bench *ARGS:
    cargo build --release --workspace
    .ci/nats || echo "SKIP: nats-server cannot be installed; nothing stands beside JetStream" >&2
    target/release/broker-bench {{ARGS}}

# Real brokers hurt under load, judged by an outside recorder and checker. `just faults --list` names the cases.
faults *ARGS:
    cargo build --workspace --bins
    cargo build --workspace --features broker/planted-bugs --bin brokerd-planted
    target/debug/broker-faults {{ARGS}}

# The same, as often and as long as a night allows, behind 10,000 simulated histories.
faults-long *ARGS:
    SIM_SEEDS=10000 cargo test -p broker --lib sim::
    cargo build --workspace --bins
    cargo build --workspace --features broker/planted-bugs --bin brokerd-planted
    target/debug/broker-faults --long {{ARGS}}

# Whether a rendering keeps what the next step needs, beside what the newest turns alone would keep.
fidelity *ARGS:
    cargo run --quiet --package broker-tests --bin broker-fidelity -- {{ARGS}}

# The whole house at work, offline.
demo:
    cargo build --workspace
    target/debug/brokerctl demo

# The broker and its agents in the foreground.
up *ARGS:
    cargo build --workspace
    target/debug/brokerctl up {{ARGS}}

# One question to each real provider whose key is in the environment; says which it skips.
live:
    .ci/live
