// Package compose tests deploy/compose.yaml. It loads the file with the library of docker
// compose and its env files with the parser of Docker, and checks the resulting services.
//
// The tests need Go and sh only. Run them with `make test-deploy`.
package compose
