// Package systemd has systemd judge the units under deploy/systemd, and holds what
// they say against the connector's own figures.
//
// systemd-analyze is installed with apt-get where it is missing and the user is
// root; without it the tests fail.
package systemd
