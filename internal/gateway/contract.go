package gateway

import _ "embed"

// OpenAPI is the gateway's contract as an OpenAPI 3.1 document with every call of the
// connector. Requests allow no additional properties, responses do. The extension x-status
// distinguishes public definitions from our own.
//
//go:embed openapi.json
var OpenAPI []byte
