// Package faults tests the built connector against failures of its environment: killed
// processes, faults of the gateway and the directory, proxies, disks, clocks and corrupt
// state files. It consists of tests only.
//
// The doc comment of each test states its pass condition. All tests share a final condition:
// the sandbox gateway holds what package oracle derives from the embedded directory, object
// by object and field by field. A monitor in front of the gateway checks every batch: no
// existing object is reported as deleted, and no older value follows a newer one.
//
// The tests need Go and loopback only. The disk tests also need root, and TestProxies needs
// squid and tinyproxy. The long form installs the proxies as root; the short form skips
// TestProxies without them.
//
// `make test` runs the short form (-short), `make test-faults` the long form. Random choices
// come from a seed; -seed repeats a run.
package faults
