# One static binary in an empty image. It builds with BuildKit and with the legacy builder alike, so
# it uses neither `RUN --mount` nor heredocs.

ARG RUST_IMAGE=rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS builder
WORKDIR /build

# Static glibc: an empty image has no loader, and names still resolve without one. cargo must be
# told the target even though it is the host's own, else it links proc-macros statically too and
# fails; the triple is asked of the compiler, so that the image builds on arm64 as well.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_TERM_COLOR=never CARGO_NET_RETRY=5
RUN rustc -vV | sed -n 's/^host: //p' > /target

# Dependencies, in a layer of their own: rebuilt only when the manifest or the lock file changes.
# The sources are stand-ins, and so is the build script, whose own dependencies build here too.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && touch src/lib.rs \
 && echo 'fn main() {}' | tee src/main.rs > build.rs \
 && cargo build --locked --release --no-default-features --bin raft-node --target "$(cat /target)"

# COPY keeps the files' own times, which may be older than the stand-ins': cargo would call the
# stand-ins up to date.
COPY build.rs ./
COPY proto proto
COPY src src
RUN find build.rs proto src -exec touch {} + \
 && cargo build --locked --release --no-default-features --bin raft-node --target "$(cat /target)" \
 && mkdir /out /out/data \
 && cp "target/$(cat /target)/release/raft-node" /out/raft-node

# As in the final image: with nothing beside it, the binary starts, and its own health check gives a
# verdict (1: nobody listens here), not a crash.
RUN chroot /out /raft-node health > /dev/null 2>&1; test $? -eq 1

FROM scratch

# The version is Cargo.toml's, and tests/tidy holds it to that. The revision is the builder's to
# give: `--build-arg REVISION="$(git rev-parse HEAD)"`.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="raft-node" \
      org.opencontainers.image.description="A replicated, linearizable, etcd-compatible store" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# By number: there is no /etc/passwd here. A new named volume takes its owner from this directory.
COPY --from=builder --chown=65532:65532 /out/data /data
COPY --from=builder /out/raft-node /raft-node
USER 65532:65532
VOLUME /data

# Listening on 127.0.0.1, the defaults, nobody outside the container would reach it.
ENV RAFT_PEER_LISTEN=0.0.0.0:5001 \
    RAFT_CLIENT_LISTEN=0.0.0.0:2379 \
    RAFT_DATA_DIR=/data
EXPOSE 2379 5001

# The binary probes itself: the image holds no shell. No start period: newer engines probe only
# every 5 s within one, and a member is ready in less.
HEALTHCHECK --interval=2s --timeout=2s --retries=2 CMD ["/raft-node", "health", "ready"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["/raft-node"]
