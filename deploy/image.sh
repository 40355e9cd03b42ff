#!/bin/sh
# Builds the image with what is there: image.sh NAME VERSION COMMIT [BUILD-ARG=VALUE ...]
set -eu
name=$1 version=$2 commit=$3
shift 3
set -- "VERSION=$version" "COMMIT=$commit" "$@"
args=
for arg; do args="$args --build-arg $arg"; done
cd "$(dirname "$0")/.."

# docker's client may be there without an engine.
# shellcheck disable=SC2086 # the build arguments are words
if docker info >/dev/null 2>&1; then
	exec docker build $args -t "$name" .
elif command -v podman >/dev/null 2>&1; then
	exec podman build $args -t "$name" .
elif command -v buildah >/dev/null 2>&1; then
	exec buildah bud ${BUILDAH_FLAGS:-} $args -t "$name" .
fi
echo "make image needs docker (with its engine running), podman or buildah: install one of them" >&2
exit 1
