package status

import "strconv"

// FormatNumber formats a number with commas between groups of three digits, like 1,141.
func FormatNumber(n int) string {
	digits := strconv.Itoa(n)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(digits) - 3; i > first; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Quantity returns a number with the singular or the plural of what it counts.
func Quantity(n int, singular, plural string) string {
	if n == 1 {
		return "1 " + singular
	}
	return FormatNumber(n) + " " + plural
}
