// Package faults tests the built connector against failures of its surroundings: killed
// processes, gateways and directories that fail in every way, proxies, disks and clocks.
// It consists of tests only.
//
// Each test states its condition. The condition at the end is the same for all: the
// sandbox gateway holds what package oracle derives from the embedded directory, object by
// object and field by field. A witness in front of the gateway checks at every moment that
// no object that exists is reported as deleted, and that no older value follows a newer
// one.
//
// Everything is seeded (-seed repeats a run) and on loopback. With -short, the tests take
// their short form.
package faults
