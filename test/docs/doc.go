// Package docs tests that the documentation matches the repository. It consists of tests
// only.
package docs
