// Package image builds the container image with buildah, without network access, and runs it
// without a container engine. The tests give the program the environment that an engine would:
// a read-only root file system, a volume, a tmpfs, namespaces for the network and for process
// IDs, and an unprivileged user.
//
// The tests need Linux and root. They install buildah and busybox-static with apt-get. They fail
// where they cannot run; they never skip. Run them with `make test-image`.
package image
