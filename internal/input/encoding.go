package input

import "bytes"

// IsUTF16 reports whether text is in UTF-16: it begins with a byte order mark, or about each second
// byte is 0, as in ASCII text.
func IsUTF16(text []byte) bool {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return true
	}
	var zeros [2]int
	for n, b := range text {
		if b == 0 {
			zeros[n%2]++
		}
	}
	return len(text) > 3 && max(zeros[0], zeros[1])*5 > len(text)*2 // 80% of one half
}
