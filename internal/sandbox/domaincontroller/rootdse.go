package domaincontroller

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"adconnector/internal/ad"
)

// encodeRootDSE writes the entry of rootDSE (MS-ADTS 3.1.1.3.2). The token of an account has only its
// own SID, and those that every account has.
func (d *Server) encodeRootDSE(e *encoder, id int64, account *object, s search) {
	base := d.root.dn()
	configuration := "CN=Configuration," + base
	capabilities := []string{"1.2.840.113556.1.4.800", "1.2.840.113556.1.4.1670", "1.2.840.113556.1.4.1791",
		"1.2.840.113556.1.4.1935", "1.2.840.113556.1.4.2080", "1.2.840.113556.1.4.2237"}
	if d.options.ReadOnly {
		capabilities = append(capabilities, "1.2.840.113556.1.4.1920")
	}
	root := []struct {
		name   string
		values []string
	}{
		{"domainFunctionality", []string{"7"}},
		{"forestFunctionality", []string{"7"}},
		{"domainControllerFunctionality", []string{"7"}},
		{"rootDomainNamingContext", []string{cmp.Or(d.options.ForestRoot, base)}},
		{"ldapServiceName", []string{domainName + ":" + d.options.Name + "$@" + strings.ToUpper(domainName)}},
		{"isGlobalCatalogReady", []string{"TRUE"}},
		{"supportedControl", []string{controlPaging, controlShowDeleted, controlShowRecycled, controlDomainScope, controlManageDSAIT, controlExtendedDN, controlSDFlags}},
		{"supportedLDAPVersion", []string{"3", "2"}},
		{"supportedLDAPPolicies", []string{"MaxPageSize", "MaxResultSetsPerConn", "MaxValRange"}},
		{"supportedExtension", []string{oidStartTLS}},
		{"supportedCapabilities", capabilities},
		{"subschemaSubentry", []string{"CN=Aggregate,CN=Schema," + configuration}},
		{"serverName", []string{d.settings.parent.dn()}},
		{"schemaNamingContext", []string{"CN=Schema," + configuration}},
		{"namingContexts", []string{base, configuration, "CN=Schema," + configuration}},
		{"isSynchronized", []string{"TRUE"}},
		{"highestCommittedUSN", []string{strconv.FormatInt(int64(d.highest), 10)}},
		{"dsServiceName", []string{d.settings.dn()}},
		{"dnsHostName", []string{d.options.Host}},
		{"defaultNamingContext", []string{base}},
		{"currentTime", []string{formatGeneralizedTime(s.now.Unix())}},
		{"configurationNamingContext", []string{configuration}},
	}
	if account != nil {
		root = append(root, struct {
			name   string
			values []string
		}{ad.AttributeTokenGroups, []string{account.sid, string(ad.Everyone), string(ad.AuthenticatedUsers)}})
	}
	end := e.message(id, tagSearchEntry)
	e.octets(tagOctets, "")
	list := e.begin(tagSequence)
	for _, attribute := range root {
		byName := attribute.name == ad.AttributeTokenGroups // returned only if it is requested by name
		if (byName || !s.selection.all) && !slices.ContainsFunc(s.selection.names, func(name string) bool { return strings.EqualFold(name, attribute.name) }) {
			continue
		}
		encodeValues(e, attribute.name, slices.Values(attribute.values), s.typesOnly)
	}
	e.end(list)
	end()
}
