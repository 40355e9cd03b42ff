// Package sandbox is the other side of the connector, in this process: a gateway
// that keeps the contract of internal/gateway, for tests, for the demo, and for
// everybody who wants to see what would be sent.
//
// The gateway guarantees that what it takes keeps the contract: every request is
// held against the OpenAPI document and against the rules that a schema cannot
// say, and what breaks one is answered with 400, named, and kept in Violations. It
// guarantees that tokens are signed, expire and can be revoked, that an upsert is
// applied once however often it is sent, and that neither a token nor a password
// appears in anything it shows.
//
// It does not guarantee that the real gateway answers alike: half of the contract
// is our own definition (x-status in the document). It keeps everything in memory,
// limits no rates, sees nothing wrong in a key given twice in one JSON object, and
// its inventory asks for no login, so it must only listen on loopback.
package sandbox
