//go:build faults

package faults

// long says that the tests take their long form.
const long = true
