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

# Whole members in a simulated world: `just sim sweep --seeds 1000`, `just sim seed 17 --trace`
sim *ARGS:
    cargo test --profile sim --test sim -- {{ARGS}}

# The core through the states of small worlds: `just model check`, `just model list`
model *ARGS="check":
    cargo test --profile sim --test model -- {{ARGS}}

# Turn every deliberate bug on, and see what finds it
mutants: proof

# The long form of the proof; its reports are in target/proof
proof SEEDS="2000" STATES="650000":
    .ci/proof {{SEEDS}} {{STATES}}

# The same, with more seeds, into docs/verification.md
ledger SEEDS="16000" STATES="650000": (proof SEEDS STATES)
    cargo test --profile sim --test verification -- write --from target/proof \
        --commit "$(git rev-parse --short HEAD)" --date "$(date +%F)"

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
