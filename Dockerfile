# The stages' images are arguments, for those who mirror or pin them.
ARG BUILD_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=scratch

# Go builds for another platform faster than an emulator builds on it.
FROM --platform=${BUILDPLATFORM} ${BUILD_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG VERSION=dev
ARG COMMIT=unknown
ARG TARGETARCH
# As `make build` does it: with the same Go, the same bytes come out.
RUN CGO_ENABLED=0 GOOS=linux GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X adconnector/internal/cli.version=${VERSION} -X adconnector/internal/cli.commit=${COMMIT}" \
        -o /out/usr/bin/adconnector ./cmd/adconnector
# What a static program needs of a system: roots to trust, a user, and a place for
# its state, which a new volume takes over with its owner. The roots are those of
# the build image and as new as it is; who has others mounts them over this file.
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
# A state file of a large directory takes some seconds to be checked at the start.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["/usr/bin/adconnector", "healthcheck"]
ENTRYPOINT ["/usr/bin/adconnector"]
