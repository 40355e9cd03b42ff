// Package release builds a release with `make release` and checks its files. It also checks that
// all files of the repository name the same version, and that the table of
// dependencies matches go.mod.
//
// The tests need make and network access for missing modules. Run them with `make test-deploy`.
package release
