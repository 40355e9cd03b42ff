# The stages' images are arguments, for those who mirror or pin them.
ARG BUILD_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
ARG VERSION=dev
ARG COMMIT=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X adconnector/internal/cli.version=${VERSION} -X adconnector/internal/cli.commit=${COMMIT}" \
        -o /out/usr/bin/adconnector ./cmd/adconnector
# What a static program needs of a system: roots to trust, time zones for CRON_TZ,
# a user, and a place for its state.
RUN mkdir -p /out/etc/ssl/certs /out/usr/share /out/var/lib/adconnector /out/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && cp "$(go env GOROOT)/lib/time/zoneinfo.zip" /out/usr/share/zoneinfo.zip \
 && echo 'adconnector:x:65532:65532::/var/lib/adconnector:/usr/bin/adconnector' > /out/etc/passwd \
 && echo 'adconnector:x:65532:' > /out/etc/group \
 && chown 65532:65532 /out/var/lib/adconnector && chmod 700 /out/var/lib/adconnector && chmod 1777 /out/tmp

FROM ${BASE_IMAGE}
COPY --from=build /out/ /
ENV ZONEINFO=/usr/share/zoneinfo.zip
USER 65532:65532
VOLUME /var/lib/adconnector
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/adconnector"]
