// Package samba runs the built connector against a real domain controller:
// Samba, provisioned for the test, filled with users and groups of every odd
// kind, read by the connector as a plain domain user. What the connector
// delivered is compared, field by field, with what ldapsearch shows of the same
// server, put through package oracle, a second implementation of the transformation.
//
// The tests carry the build tag ad and need Linux, root (the server's ports are
// 389 and 636) and Samba, which they install with apt-get where it is missing.
// Where they cannot run they fail; they never skip. `make test-ad` runs them.
package samba
