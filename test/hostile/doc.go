// Package hostile attacks the built connector through the directory and the gateway, and
// measures its memory. It has tests only.
//
// Each attack answers in one way that a peer may choose, or in a random combination of ways. A
// run passes if the process ends by itself, if its stderr has only log lines in the documented
// form and no secret, and if its memory stays below the bound.
package hostile
