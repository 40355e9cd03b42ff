# The base images are arguments, so that they can be mirrored or pinned.
ARG BUILD_IMAGE=docker.io/library/golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d
ARG BASE_IMAGE=scratch

# Cross-compile on the build platform: this is faster than emulating the target platform.
FROM --platform=${BUILDPLATFORM} ${BUILD_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG VERSION=dev
ARG COMMIT=unknown
ARG TARGETARCH
# The same flags as `make build`: the same Go version produces an identical binary.
RUN CGO_ENABLED=0 GOOS=linux GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X adconnector/internal/cli.version=${VERSION} -X adconnector/internal/cli.commit=${COMMIT}" \
        -o /out/usr/bin/adconnector ./cmd/adconnector
# The files that a static program needs: root certificates, a user, and a directory for
# its state. A new volume is created with the owner of this directory. The root
# certificates are those of the build image. To use others, mount them over this file.
RUN mkdir -p /out/etc/ssl/certs /out/var/lib/adconnector /out/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && echo 'adconnector:x:65532:65532::/var/lib/adconnector:/usr/bin/adconnector' > /out/etc/passwd \
 && echo 'adconnector:x:65532:' > /out/etc/group \
 && chown 65532:65532 /out/var/lib/adconnector && chmod 700 /out/var/lib/adconnector && chmod 1777 /out/tmp

FROM ${BASE_IMAGE}
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="adconnector" \
      org.opencontainers.image.description="Brings users and groups from Active Directory to the Qualys gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /out/ /
USER 65532:65532
VOLUME /var/lib/adconnector
STOPSIGNAL SIGTERM
# At start, verifying the state file of a large directory takes several seconds.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["/usr/bin/adconnector", "healthcheck"]
ENTRYPOINT ["/usr/bin/adconnector"]
