// Package systemd checks the units under deploy/systemd with systemd-analyze, and compares their
// settings with each other and with the connector's defaults.
//
// The tests install systemd-analyze with apt-get, as root, and fail without it. Run them with
// `make test-deploy`.
package systemd
