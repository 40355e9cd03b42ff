package domaincontroller

// foreignPrincipal is an account in another domain.
var foreignPrincipal = newSID(21, 9, 9, 9, 1104)

// expose gives the domain and some accounts the settings that security posture shows. A domain without
// generated users keeps the defaults.
func (g *generator) expose() {
	if len(g.users) == 0 {
		return
	}
	d := g.d
	d.configured.set("dSHeuristics", "0000002001000001") // anonymous access, and no protection of Account Operators
	d.root.set("msDS-ExpirePasswordsOnSmartCardOnlyAccounts", "FALSE")
	created := g.now.Add(-domainAge)
	foreign := d.createForeign(d.root.children[rdn{"CN", "ForeignSecurityPrincipals"}.key()], foreignPrincipal, created)
	builtin := d.root.children[rdn{"CN", "Builtin"}.key()]
	setMembers(builtin.children[rdn{"CN", "Backup Operators"}.key()], []*object{foreign})

	b := g.machine("AZUREADSSOACC")
	b["pwdLastSet"] = g.ago(400 * day)
	g.addPrincipal("computer", d.root.children[rdn{"CN", "Computers"}.key()], "AZUREADSSOACC", b, created)

	// Every tenth account has a home directory in the domain, and some of the first ones are exposed.
	for n, user := range g.users {
		if n%10 == 0 {
			user.set("homeDirectory", `\\files.`+domainName+`\home\`+user.attributes.first("sAMAccountName"))
		}
	}
	exposures := []map[string][]string{
		{"userPassword": {"not a real password"}},
		{"altSecurityIdentities": {"X509:<I>DC=com,DC=example,CN=CA<S>CN=someone", "X509:<SKI>d1a0c7f3"}},
		{"msDS-KeyCredentialLink": {"B:4:0001:" + d.root.dn()}},
		{"scriptPath": {"logon.cmd"}, "profilePath": {`\\198.51.100.7\profiles\someone`}},
	}
	for n, attributes := range exposures {
		if n >= len(g.users) {
			return
		}
		for name, values := range attributes {
			g.users[n].set(name, values...)
		}
	}
	if len(g.users) > len(exposures) {
		g.supersede(g.users[len(exposures)])
	}
}

// supersede adds a delegated managed service account that supersedes an account.
func (g *generator) supersede(account *object) {
	b := g.machine("dmsa-reports")
	b["msDS-ManagedPasswordInterval"] = "30"
	b["msDS-DelegatedMSAState"] = "2"
	b["msDS-ManagedAccountPrecededByLink"] = account.dn()
	parent := g.d.root.children[(rdn{"CN", "Managed Service Accounts"}).key()]
	delegated := g.addPrincipal("msDS-DelegatedManagedServiceAccount", parent, "dmsa-reports", b, g.now.Add(-g.duration(domainAge)))
	account.set("msDS-SupersededManagedAccountLink", delegated.dn())
}
