package ad

// Attributes that several packages know, because they mean more than a value in a map.
const (
	// AttributeDescriptor is the security descriptor of an object.
	AttributeDescriptor = "nTSecurityDescriptor"
	// AttributePrincipal is the name of an account with that of its domain: CORP\alice.
	AttributePrincipal = "msDS-PrincipalName"
	// AttributeTokenGroups is, at an account, the SIDs of its groups, and at the rootDSE those of the
	// account of the session, with its own (MS-ADTS 3.1.1.3.2).
	AttributeTokenGroups = "tokenGroups"
)
