package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"time"
)

// ldif writes entries with random content (RFC 2849). Write errors are sticky in the
// bufio.Writer: Flush returns the first one.
type ldif struct {
	out     *bufio.Writer
	random  *rand.Rand
	inEntry bool
}

// entry begins an entry and ends the previous one.
func (w *ldif) entry(dn string) {
	w.end()
	w.inEntry = true
	w.text("dn", dn)
}

func (w *ldif) end() {
	if w.inEntry {
		w.out.WriteByte('\n')
	}
}

func (w *ldif) text(name string, values ...string) {
	for _, value := range values {
		if !isASCII(value) {
			w.binary(name, []byte(value))
			continue
		}
		w.out.WriteString(name)
		w.out.WriteString(": ")
		w.out.WriteString(value)
		w.out.WriteByte('\n')
	}
}

func (w *ldif) binary(name string, value []byte) {
	w.out.WriteString(name)
	w.out.WriteString(":: ")
	w.out.WriteString(base64.StdEncoding.EncodeToString(value))
	w.out.WriteByte('\n')
}

// isASCII reports whether a value needs no encoding. No generated value has other characters
// that need one.
func isASCII(value string) bool {
	for i := range len(value) {
		if value[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (w *ldif) chance(percent int) bool { return w.random.IntN(100) < percent }

// optional writes an attribute with a probability in percent.
func (w *ldif) optional(percent int, name, value string) {
	if w.chance(percent) {
		w.text(name, value)
	}
}

// fileTime returns a random time in units of 100 ns since 1601 with a probability in percent,
// else the default.
func (w *ldif) fileTime(percent int, defaultValue string) string {
	const epoch = 11644473600 // seconds from 1601 to 1970
	if !w.chance(percent) {
		return defaultValue
	}
	return strconv.FormatInt((w.randomTime().Unix()+epoch)*10_000_000+w.random.Int64N(10_000_000), 10)
}

// randomTime returns a time in the nine years from 2017. All are in the past: an object
// whose logon or expiry passes between two runs changes.
func (w *ldif) randomTime() time.Time {
	return time.Unix(1483228800+w.random.Int64N(9*365*24*3600), 0).UTC()
}

func (w *ldif) randomBytes(b []byte) []byte {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], w.random.Uint64())
	}
	return b
}
