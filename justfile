# `just` lists what there is; nothing here is needed to build, run or test with cargo alone.

_default:
    @just --list

# What CI holds before the tests: format, lints, documentation
check: fmt-check docs
    cargo clippy --all-targets -- -D warnings

# Format everything
fmt:
    cargo fmt

[private]
fmt-check:
    cargo fmt --check

# Build the documentation; a broken link fails
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps

# Run the tests; the container tests too where docker answers
test *ARGS:
    cargo test {{ARGS}}

# Run the benchmarks
bench *ARGS:
    cargo bench {{ARGS}}

# Start the three members in containers
compose-up:
    docker compose up --build --detach

# Forget the three members and their data
compose-down:
    docker compose down --volumes

# Strike the leader of the running containers again and again: stop, kill, pause or disconnect
failover FAULT="kill" *ARGS:
    cargo run --release --bin raft-drill -- drill {{FAULT}} {{ARGS}}

# Licences, advisories, duplicates and origins of the dependencies (needs cargo-deny)
deny:
    cargo deny check
