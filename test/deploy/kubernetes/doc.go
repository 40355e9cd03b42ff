// Package kubernetes renders the Helm chart with the library of Helm and checks the objects. It
// decodes them strictly into the API types, evaluates the restricted Pod Security Standard with
// the library of the admission controller, and loads the environment with the connector's
// configuration.
//
// The tests need Go only. Run them with `make test-deploy`.
package kubernetes
