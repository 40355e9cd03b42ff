// Package faults holds the connector, as it is shipped, against what goes wrong
// where it runs: processes that are killed, gateways and directories that fail in
// every way, proxies, disks and clocks. It consists of tests only.
//
// Each test states what must hold. What must hold in the end is the same for all: the
// sandbox gateway holds what package oracle makes of the embedded directory, object by
// object and field by field. A witness in front of the gateway sees to it that nothing
// is reported as deleted that is there, at any moment, and that no older value follows
// a newer one.
//
// Everything is seeded (-seed repeats a run), bounded, and on loopback. Without the
// build tag faults the tests take their short form.
package faults
