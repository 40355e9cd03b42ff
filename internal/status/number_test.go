package status

import "testing"

func TestFormatNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1141: "1,141", 1234567: "1,234,567", -999: "-999", -1000: "-1,000"} {
		if got := FormatNumber(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 runs", 1: "1 run", 1000: "1,000 runs"} {
		if got := Quantity(n, "run", "runs"); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
