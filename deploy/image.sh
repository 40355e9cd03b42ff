#!/bin/sh
# Builds the image with what is there: image.sh NAME VERSION COMMIT [BUILD-ARG=VALUE ...]
# ENGINE chooses docker, podman or buildah; SOURCE is the URL for the image's source label.
set -eu
name=$1 version=$2 commit=$3
shift 3
set -- "VERSION=$version" "COMMIT=$commit" "$@"
args=
for arg; do args="$args --build-arg $arg"; done
args="$args${SOURCE:+ --label org.opencontainers.image.source=$SOURCE}"
cd "$(dirname "$0")/.."

engine=${ENGINE:-}
if [ -z "$engine" ]; then
	# docker's client may be there without an engine.
	if docker info >/dev/null 2>&1; then engine=docker
	elif command -v podman >/dev/null 2>&1; then engine=podman
	elif command -v buildah >/dev/null 2>&1; then engine=buildah
	fi
fi
# OCI's own image format has no place for a HEALTHCHECK.
# shellcheck disable=SC2086 # the arguments are words
case $engine in
docker) exec docker build $args -t "$name" . ;;
podman) exec podman build --format docker $args -t "$name" . ;;
buildah) exec buildah bud ${BUILDAH_FLAGS:-} --format docker $args -t "$name" . ;;
esac
echo "make image needs docker (with its engine running), podman or buildah: install one of them" >&2
exit 1
