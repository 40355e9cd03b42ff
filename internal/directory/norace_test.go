//go:build !race

package directory

const hugeEntries = 1000
