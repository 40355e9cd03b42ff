package identity

import (
	"bytes"
	"slices"
	"strconv"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// This file has values that show that an attribute has values, and of which kind they are, but never
// the values themselves.

// secrets are attributes whose values can be passwords. Only their presence is used: it is sent, and
// it is part of fingerprints. A search cannot request the names of some attributes and the values of
// others, and a search for names only (RFC 4511 4.5.1.8) would read every object twice.
var secrets = []string{"userPassword", "unixUserPassword", "msSFU30Password"}

// passwordAttributes appends the names of the attributes in slots that have a value. The slots are
// those of secrets, in the same order.
func passwordAttributes(dst []byte, src *source, slots []int) []byte {
	l := list{dst: dst}
	for i, slot := range slots {
		if len(src.entry.First(slot)) > 0 && l.next() {
			l.dst = appendEnum(l.dst, secrets[i])
		}
	}
	return l.end()
}

// valueCount appends the number of values, if there are any. An incomplete list counts as malformed.
func valueCount(dst []byte, src *source, slots []int) []byte {
	if slices.Contains(src.entry.Partial, slots[0]) {
		src.unparsed++
		return dst
	}
	if n := len(src.entry.Values[slots[0]]); n > 0 {
		return strconv.AppendInt(dst, int64(n), 10)
	}
	return dst
}

// mappingForm is a form of the values of altSecurityIdentities.
type mappingForm uint32

// The forms (MS-PKCA 3.1.5.2.1; Microsoft KB5014754).
const (
	formIssuerSubject mappingForm = 1 << iota
	formSubjectOnly
	formRFC822
	formIssuerSerialNumber
	formSubjectKeyIdentifier
	formPublicKeyHash
	formKerberos
	formOther

	// weakForms are forms that certificates of other accounts can match (KB5014754).
	weakForms = formIssuerSubject | formSubjectOnly | formRFC822
)

var mappingForms = []namedFlag[mappingForm]{
	{formIssuerSubject, "X509_ISSUER_SUBJECT"},
	{formSubjectOnly, "X509_SUBJECT_ONLY"},
	{formRFC822, "X509_RFC822"},
	{formIssuerSerialNumber, "X509_ISSUER_SERIAL_NUMBER"},
	{formSubjectKeyIdentifier, "X509_SKI"},
	{formPublicKeyHash, "X509_SHA1_PUBLIC_KEY"},
	{formKerberos, "KERBEROS"},
	{formOther, "OTHER"},
}

// formOf returns the form of a value of altSecurityIdentities.
func formOf(value []byte) mappingForm {
	if _, ok := cutPrefixFold(value, "Kerberos:"); ok {
		return formKerberos
	}
	rest, ok := cutPrefixFold(value, "X509:")
	if !ok {
		return formOther
	}
	for _, tag := range []struct {
		name string
		form mappingForm
	}{
		{"<S>", formSubjectOnly}, {"<RFC822>", formRFC822}, {"<SKI>", formSubjectKeyIdentifier}, {"<SHA1-PUKEY>", formPublicKeyHash},
	} {
		if _, ok := cutPrefixFold(rest, tag.name); ok {
			return tag.form
		}
	}
	if rest, ok = cutPrefixFold(rest, "<I>"); !ok {
		return formOther
	}
	for i := range rest {
		if _, ok := cutPrefixFold(rest[i:], "<SR>"); ok {
			return formIssuerSerialNumber
		}
		if _, ok := cutPrefixFold(rest[i:], "<S>"); ok {
			return formIssuerSubject
		}
	}
	return formOther
}

func cutPrefixFold(value []byte, prefix string) (rest []byte, found bool) {
	if len(value) < len(prefix) || !bytes.EqualFold(value[:len(prefix)], []byte(prefix)) {
		return value, false
	}
	return value[len(prefix):], true
}

// identityForms appends the forms of altSecurityIdentities, out of a set.
func identityForms(set mappingForm) value {
	return func(dst []byte, src *source, slots []int) []byte {
		var forms mappingForm
		for _, v := range src.entry.Values[slots[0]] {
			forms |= formOf(v)
		}
		return appendNames(dst, forms&set, mappingForms)
	}
}

// pathTargets are the names of the slots of outsidePaths, in their order.
var pathTargets = []string{"homeDirectory", "profilePath", "scriptPath"}

// outsidePaths appends the names of the attributes in slots that are paths on a host outside of the
// domain of the entry.
func outsidePaths(dst []byte, src *source, slots []int) []byte {
	l := list{dst: dst}
	for i, slot := range slots {
		if host := uncHost(src.entry.First(slot)); len(host) > 0 && isOutside(host, src.entry.DN) && l.next() {
			l.dst = appendEnum(l.dst, pathTargets[i])
		}
	}
	return l.end()
}

// uncHost returns the host of a UNC path (MS-DTYP 2.2.57), without the transport of WebDAV
// (host@SSL@8443), or nil for another path. It shares memory with path.
func uncHost(path []byte) []byte {
	isSeparator := func(c byte) bool { return c == '\\' || c == '/' }
	path = bytes.Trim(path, " \t\"")
	if len(path) < 3 || !isSeparator(path[0]) || !isSeparator(path[1]) {
		return nil
	}
	host, rest := cutComponent(path[2:])
	if string(host) == "?" || string(host) == "." { // \\?\UNC\host\share; other devices have no host
		var device []byte
		if device, rest = cutComponent(rest); !bytes.EqualFold(device, []byte("UNC")) {
			return nil
		}
		host, _ = cutComponent(rest)
	}
	host, _, _ = bytes.Cut(host, []byte{'@'})
	return bytes.TrimSuffix(host, []byte{'.'})
}

// cutComponent splits a path after its first component.
func cutComponent(path []byte) (component, rest []byte) {
	if end := bytes.IndexAny(path, `\/`); end >= 0 {
		return path[:end], path[end+1:]
	}
	return path, nil
}

// isOutside reports whether a host is outside of the domain of an entry: an IP address, or a name
// with dots that is neither the DNS name of the domain nor below it. A single label is a host that
// the domain resolves.
func isOutside(host, dn []byte) bool {
	if bytes.IndexByte(host, ':') >= 0 {
		return true // an IPv6 address
	}
	if bytes.IndexByte(host, '.') < 0 {
		_, err := strconv.ParseUint(string(host), 0, 32) // an IPv4 address as one number
		return err == nil
	}
	var buffer [256]byte
	domain := ad.AppendDNSName(buffer[:0], dn)
	rest, found := cutSuffixFold(host, domain)
	return !found || len(domain) == 0 || len(rest) > 0 && rest[len(rest)-1] != '.'
}

func cutSuffixFold(value, suffix []byte) (rest []byte, found bool) {
	start := len(value) - len(suffix)
	if start < 0 || !bytes.EqualFold(value[start:], suffix) {
		return value, false
	}
	return value[:start], true
}

// linkedPrincipal appends the SID in an extended DN. The value of a link whose object has no SID is
// malformed.
func linkedPrincipal(dst []byte, src *source, slots []int) []byte {
	v := src.entry.First(slots[0])
	if len(v) == 0 {
		return dst
	}
	var dn ad.ExtendedDN
	parsed := dn.Parse(v)
	shared, ok := dn.SID()
	if !parsed || !ok {
		src.unparsed++
		return dst
	}
	id := slices.Clone(shared)
	src.mention(id, ad.RelativeName(dn.DN), membership.KindUnknown)
	return appendQuoted(dst, id)
}

// delegatedStates are the values of msDS-DelegatedMSAState. Microsoft's page "Setting up delegated
// Managed Service Accounts" has 3; Akamai's description of BadSuccessor has the others.
var delegatedStates = []string{"UNKNOWN", "MIGRATION_IN_PROGRESS", "MIGRATED", "STANDALONE"}
