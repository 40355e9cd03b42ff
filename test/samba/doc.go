// Package samba tests the built connector against a real domain controller. The first test
// provisions a Samba domain and fills it with users and groups, many of them unusual. The
// connector reads the domain as a plain domain user.
//
// The tests compare the gateway, field by field, with the entries that ldapsearch returns from
// the same server. Package oracle, a second implementation of the transformation, converts the
// entries.
//
// Other tests use a second domain with two controllers, which replicate with each other. They
// stop a controller, or its replication, and check that the connector neither loses a change
// nor sends a deletion without proof.
//
// The tests have the build tag ad. They need Linux, root for ports below 1024 and mount
// namespaces, and Samba, which they install with apt-get. They fail where they cannot run; they
// never skip. Run them with `make test-ad`.
package samba
