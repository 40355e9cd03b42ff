// Package kubernetes renders the Helm chart with Helm's own library and holds what
// comes out: against the API's types, in which no field may be unknown; against the
// restricted Pod Security Standard, as the cluster's own admission judges it; and
// against the connector's own reading of its environment.
package kubernetes
