// Package release makes a release and looks at what came out, and holds the version
// and the table of dependencies against the places that name them too.
package release
