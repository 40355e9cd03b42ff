// Package image builds the container image with buildah, without a network, and
// runs what is in it as an engine would: the image's files as a root file system
// that cannot be written, one volume and a tmpfs, an own network and own process
// IDs, a user without rights, and the environment byte for byte as in the env file.
//
// The tests need Linux and root. They install buildah and busybox-static with
// apt-get where they are missing. Where they cannot run they fail; they never skip.
// `make test-image` runs them.
package image
