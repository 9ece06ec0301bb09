# The image: Portcullis and the libraries it is linked to, nothing else. No shell, no package manager, no user but 65532.
#
#   docker build -t registry.example/portcullis:0.1.0 .
#   buildah build -t registry.example/portcullis:0.1.0 .
#
# Where the base comes from a mirror: --build-arg RUST_IMAGE=mirror.example/rust:1.95-slim-bookworm

ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
FROM ${RUST_IMAGE} AS build
# cmake and the compilers are for zlib-ng and ring; the certificates go into the image.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates cmake gcc g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
ARG PROFILE=release

# The dependencies have a layer of their own, which stays until the lock file changes: they are built for a program that
# does nothing.
COPY Cargo.toml Cargo.lock ./
COPY benches/proxy/Cargo.toml benches/proxy/
RUN mkdir -p src benches/gate benches/proxy/src tests/it \
 && touch src/lib.rs benches/gate/main.rs benches/revocation.rs tests/it/main.rs \
 && echo 'fn main() {}' | tee benches/proxy/src/main.rs >src/main.rs \
 && cargo build --locked --profile "$PROFILE" --bin portcullis \
 && rm -r src

# Its time of change tells cargo what is new, so the real ones must be younger than what was built above. The dialects and
# the page are compiled in.
COPY config config
COPY src src
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --locked --profile "$PROFILE" --bin portcullis \
 && mkdir /bare \
 && built="target/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")/portcullis" \
 && config/image/bare-root "$built" /bare \
 && /bare/portcullis --version

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A security sidecar that stands in front of a player account management (PAM) service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /bare /
# A number, so that `runAsNonRoot` can be checked without reading /etc/passwd.
USER 65532:65532
STOPSIGNAL SIGTERM
# Callers; and probes and metrics, which are HTTP. There is no HEALTHCHECK: it would need a second program in the image.
EXPOSE 8080 9901
ENTRYPOINT ["/portcullis"]
