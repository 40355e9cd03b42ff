package gateway

import _ "embed"

// OpenAPI is the gateway's contract as an OpenAPI 3.1 document: every call that
// the connector makes, closed in what it sends and open in what it receives, with
// a mark (x-status) on what is public and what is our own definition.
//
//go:embed openapi.json
var OpenAPI []byte
