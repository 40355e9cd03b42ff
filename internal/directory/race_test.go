//go:build race

package directory

// hugeEntries is smaller here: the race detector follows every byte that is copied.
const hugeEntries = 250
