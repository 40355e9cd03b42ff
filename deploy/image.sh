#!/bin/sh
# Builds the image with the first available engine: docker, podman, or buildah.
# Usage: image.sh NAME VERSION COMMIT [BUILD-ARG=VALUE ...]
# ENGINE selects the engine. SOURCE is the URL for the image's source label.
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
	# The docker client can be installed without a running engine.
	if docker info >/dev/null 2>&1; then engine=docker
	elif command -v podman >/dev/null 2>&1; then engine=podman
	elif command -v buildah >/dev/null 2>&1; then engine=buildah
	fi
fi
# podman and buildah default to the OCI image format, which has no HEALTHCHECK.
# shellcheck disable=SC2086 # word splitting of the arguments is intended
case $engine in
docker) exec docker build $args -t "$name" . ;;
podman) exec podman build --format docker $args -t "$name" . ;;
buildah) exec buildah bud ${BUILDAH_FLAGS:-} --format docker $args -t "$name" . ;;
esac
echo "make image requires docker (with a running engine), podman, or buildah: install one of them" >&2
exit 1
