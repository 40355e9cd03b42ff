// Package sandbox is the other side of the connector, in this process: a directory and
// a gateway, for tests, for the demo, and for everybody who wants to see what would be
// read and sent. Neither knows of the other, and each can be read by itself: the files
// directory*.go are the one, gateway*.go the other, and inventory* its pages.
//
// The directory is a domain controller of one domain, with people in it who are made
// up. It guarantees that what the connector asks is answered as a domain controller
// would, which package conformance holds against a real one, and that LDAP changes nothing:
// changes come by its methods. It does not guarantee more of LDAP than that: binds are
// simple ones, its references lead nowhere, and it replicates with nobody.
//
// The gateway guarantees that what it takes keeps the contract of internal/gateway:
// every request is held against the OpenAPI document and against the rules that a
// schema cannot say, and what breaks one is answered with 400, named, and kept in
// Violations. It guarantees that tokens are signed, expire and can be revoked, that an
// upsert is applied once however often it is sent, and that neither a token nor a
// password appears in anything it shows.
//
// What the gateway took can be looked at below /inventory/: users, groups, one of
// them by its vendorAssetId (/inventory/users/{vendorAssetId}), states and requests.
// A client that asks for HTML gets pages, which need no script and load nothing from
// elsewhere; any other, and whoever adds ?format=json, gets JSON. The parameters are
// the same for both:
//
//	q        words, all of which must occur in name, display name, e-mail, SID or
//	         GUID, without regard to case; "in quotes", they stand together. Terms
//	         narrow the listing, as the ones below do:
//	         inventory.source: ('Microsoft Active Directory') status: LOCKED
//	source   the source that the request named, as it is
//	status   one of the statuses of users, or DELETED of groups
//	type, visibility
//	         of groups
//	sort     a column by its field, or vendorAssetId, which is the default of JSON;
//	         with a minus before it the other way round. What is empty comes last.
//	limit, offset
//	         a part of the listing. Without a limit a page has 50 rows, at most
//	         1,000, and JSON everything. States and requests know only these two.
//
// A parameter that is given more than once means any of its values. One that is
// wrong is answered with 400 and a line that says what can be used. JSON has the
// whole number of what was found in total, and with each asset its source, when it
// was last received (receivedAt), and how often (times).
//
// It does not guarantee that the platform's gateway answers alike: half of the contract
// is our own definition (x-status in the document). It keeps everything in memory,
// limits no rates, sees nothing wrong in a key given twice in one JSON object, and
// its inventory asks for no login, so it must only listen on loopback.
package sandbox
