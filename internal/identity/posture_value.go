package identity

import (
	"bytes"
	"slices"
	"strconv"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// namedFlag is a flag and its name in assets.
type namedFlag[T ~uint32] struct {
	flag T
	name string
}

var controlFlags = []namedFlag[ad.AccountControl]{
	{ad.AccountPasswordNotRequired, "PASSWORD_NOT_REQUIRED"},
	{ad.AccountPasswordNeverExpires, "PASSWORD_NEVER_EXPIRES"},
	{ad.AccountReversibleEncryption, "REVERSIBLE_ENCRYPTION"},
	{ad.AccountNoPreauthentication, "NO_PREAUTHENTICATION"},
	{ad.AccountDESOnly, "DES_ONLY"},
	{ad.AccountTrustedForDelegation, "TRUSTED_FOR_DELEGATION"},
	{ad.AccountTrustedToAuthForDelegated, "TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION"},
	{ad.AccountNotDelegated, "NOT_DELEGATED"},
	{ad.AccountSmartCardRequired, "SMART_CARD_REQUIRED"},
}

var encryptionFlags = []namedFlag[ad.EncryptionTypes]{
	{ad.EncryptionDESCRC, "DES_CBC_CRC"},
	{ad.EncryptionDESMD5, "DES_CBC_MD5"},
	{ad.EncryptionRC4, "RC4_HMAC"},
	{ad.EncryptionAES128, "AES128"},
	{ad.EncryptionAES256, "AES256"},
	{ad.EncryptionAES256Session, "AES256_SESSION_KEY"},
}

func appendNames[T ~uint32](dst []byte, flags T, names []namedFlag[T]) []byte {
	l := list{dst: dst}
	for _, n := range names {
		if flags&n.flag != 0 && l.next() {
			l.dst = appendEnum(l.dst, n.name)
		}
	}
	return l.end()
}

// controlNames does not count a malformed value: userStatus counts it.
func controlNames(dst []byte, src *source, slots []int) []byte {
	control, _ := ad.ParseAccountControl(src.entry.First(slots[0]))
	return appendNames(dst, control, controlFlags)
}

func encryptionNames(dst []byte, src *source, slots []int) []byte {
	types, _ := parseFirst(src, slots[0], ad.ParseEncryptionTypes)
	return appendNames(dst, types, encryptionFlags)
}

// list appends a JSON array to dst. It appends nothing if there are no items.
type list struct {
	dst   []byte
	count int
}

// next appends the separator before an item. It must be called before each item. It returns
// false if the asset is too large for further items.
func (l *list) next() bool {
	if len(l.dst) > MaxAssetBytes {
		return false
	}
	if l.count++; l.count == 1 {
		l.dst = append(l.dst, '[')
	} else {
		l.dst = append(l.dst, ',')
	}
	return true
}

func (l *list) end() []byte {
	if l.count > 0 {
		l.dst = append(l.dst, ']')
	}
	return l.dst
}

// sortedValues returns the values of a multi-valued attribute. They are sorted, because the
// directory returns them in any order. An incomplete list counts as malformed.
func sortedValues(src *source, slot int) [][]byte {
	if slices.Contains(src.entry.Partial, slot) {
		src.unparsed++
		return nil
	}
	values := src.entry.Values[slot]
	if len(values) < 2 {
		return values
	}
	src.values = append(src.values[:0], values...)
	slices.SortFunc(src.values, bytes.Compare)
	return src.values
}

func texts(dst []byte, src *source, slots []int) []byte {
	l := list{dst: dst}
	for _, v := range sortedValues(src, slots[0]) {
		if len(v) > 0 && l.next() {
			l.dst = appendString(l.dst, v)
		}
	}
	return l.end()
}

// commaSeparated appends the parts of a value, without spaces around them.
func commaSeparated(dst []byte, src *source, slots []int) []byte {
	src.values = src.values[:0]
	for v := range bytes.SplitSeq(src.entry.First(slots[0]), []byte(",")) {
		if v = bytes.TrimSpace(v); len(v) > 0 {
			src.values = append(src.values, v)
		}
	}
	slices.SortFunc(src.values, bytes.Compare)
	l := list{dst: dst}
	for _, v := range slices.CompactFunc(src.values, bytes.Equal) {
		if l.next() {
			l.dst = appendString(l.dst, v)
		}
	}
	return l.end()
}

func (l *list) sid(id ad.SID) {
	if l.next() {
		l.dst = appendQuoted(l.dst, id)
	}
}

// appendPrincipals appends and mentions SIDs, sorted.
func appendPrincipals(dst []byte, src *source, ids []ad.SID) []byte {
	slices.SortFunc(ids, ad.SID.Compare)
	l := list{dst: dst}
	for _, id := range ids {
		l.sid(id)
		src.mention(id, nil, membership.KindUnknown)
	}
	return l.end()
}

func sids(dst []byte, src *source, slots []int) []byte {
	values := sortedValues(src, slots[0])
	if len(values) == 0 {
		return dst
	}
	ids := make([]ad.SID, 0, len(values))
	for _, v := range values {
		if id, ok := ad.ParseSID(v); ok {
			ids = append(ids, id)
		} else {
			src.unparsed++
		}
	}
	return appendPrincipals(dst, src, ids)
}

func optionalSID(dst []byte, src *source, slots []int) []byte {
	if id, ok := parseFirst(src, slots[0], ad.ParseSID); ok {
		return appendQuoted(dst, id)
	}
	return dst
}

// trustedSID appends the SID of a trusted domain, whose name is in the second slot.
func trustedSID(dst []byte, src *source, slots []int) []byte {
	if id, ok := parseFirst(src, slots[0], ad.ParseSID); ok {
		src.mention(id, src.entry.First(slots[1]), membership.KindDomain)
		return appendQuoted(dst, id)
	}
	return dst
}

// grantedTo appends the SIDs of the principals that a security descriptor grants a right.
func grantedTo(right ad.AccessMask) value {
	return func(dst []byte, src *source, slots []int) []byte {
		v := src.entry.First(slots[0])
		if len(v) == 0 {
			return dst
		}
		if !src.descriptor.Parse(v) {
			src.unparsed++
			return dst
		}
		return appendPrincipals(dst, src, src.descriptor.Granted(right))
	}
}

// entryDN appends the DN of the entry, which every account that finds the entry can read.
func entryDN(dst []byte, src *source, _ []int) []byte {
	if len(src.entry.DN) > 0 {
		return appendString(dst, src.entry.DN)
	}
	return dst
}

func plainDN(dst []byte, src *source, slots []int) []byte {
	if v := ad.PlainDN(src.entry.First(slots[0])); len(v) > 0 {
		return appendString(dst, v)
	}
	return dst
}

// managedBy appends the SID in an extended DN, if there is one. A user is not mentioned, because users
// are assets of their own.
func managedBy(dst []byte, src *source, slots []int) []byte {
	var dn ad.ExtendedDN
	if !dn.Parse(src.entry.First(slots[0])) {
		return dst
	}
	id, ok := dn.SID()
	if !ok {
		return dst
	}
	if !src.isUser(id) {
		src.mention(slices.Clone(id), ad.RelativeName(dn.DN), membership.KindUnknown)
	}
	return appendQuoted(dst, id)
}

func (src *source) isUser(id ad.SID) bool {
	n, found := src.findSID(id)
	return found && src.graph.Kind(n) == membership.KindUser
}

// linkedPrincipals appends the SIDs in extended DNs, sorted.
func linkedPrincipals(dst []byte, src *source, slots []int) []byte {
	var ids []ad.SID
	var dn ad.ExtendedDN
	for _, v := range sortedValues(src, slots[0]) {
		if !dn.Parse(v) {
			src.unparsed++
		} else if shared, ok := dn.SID(); ok {
			id := slices.Clone(shared)
			ids = append(ids, id)
			src.mention(id, ad.RelativeName(dn.DN), membership.KindUnknown)
		}
	}
	slices.SortFunc(ids, ad.SID.Compare)
	l := list{dst: dst}
	for _, id := range ids {
		l.sid(id)
	}
	return l.end()
}

func present(dst []byte, src *source, slots []int) []byte {
	if len(src.entry.First(slots[0])) == 0 {
		return dst
	}
	return append(dst, "true"...)
}

func boolean(dst []byte, src *source, slots []int) []byte {
	switch v := src.entry.First(slots[0]); string(v) {
	case "TRUE":
		return append(dst, "true"...)
	case "FALSE":
		return append(dst, "false"...)
	case "":
	default:
		src.unparsed++
	}
	return dst
}

// passwordExpiry appends the expiry that the domain controller computes under the effective
// policy. Map counts a malformed value.
func passwordExpiry(dst []byte, src *source, slots []int) []byte {
	t, ok := ad.ParseFileTime(src.entry.First(slots[0]))
	if !ok || t.IsNone() {
		return dst
	}
	return t.Time().AppendFormat(dst, timeFormat)
}

// passwordExpiryCase appends which of the two values that are no time the expiry has (MS-ADTS
// 3.1.1.4.5.36). A missing value is none of them: the account may not read it.
func passwordExpiryCase(dst []byte, src *source, slots []int) []byte {
	t, ok := ad.ParseFileTime(src.entry.First(slots[0]))
	switch {
	case !ok || !t.IsNone():
		return dst
	case t == 0:
		return appendEnum(dst, "MUST_CHANGE")
	default:
		return appendEnum(dst, "NEVER")
	}
}

func serviceAccount(dst []byte, _ *source, _ []int) []byte {
	return appendEnum(dst, accountTypeService)
}

// primaryRID returns the RID of an account's primary group.
func primaryRID(src *source, slot int) (ad.RID, bool) {
	rid, ok := ad.ParseRID(src.entry.First(slot))
	return rid, ok && rid != 0
}

func primaryGroup(dst []byte, src *source, slots []int) []byte {
	if src.hasPrimary {
		src.mentionNode(src.primary[0])
		return append(src.graph.AppendSID(append(dst, '"'), src.primary[0]), '"')
	}
	id, ok := primarySID(src, slots[0])
	if !ok {
		if len(src.entry.First(slots[0])) > 0 {
			src.unparsed++
		}
		return dst
	}
	return appendQuoted(dst, id)
}

// primarySID returns the SID of an account's primary group.
func primarySID(src *source, slot int) (ad.SID, bool) {
	authority, _, ok := src.sid.Split()
	rid, ok2 := primaryRID(src, slot)
	if !ok || !ok2 {
		return nil, false
	}
	return ad.JoinSID(authority, rid), true
}

// node appends the SID of an object. It leaves out an object without a SID.
func (l *list) node(g *membership.Graph, n membership.Node) {
	if g.HasSID(n) && l.next() {
		l.dst = append(g.AppendSID(append(l.dst, '"'), n), '"')
	}
}

// directGroups appends an account's groups: the primary group, which does not list the
// account as a member, and then the others. It does not mention them, because groups are assets of
// their own, and accounts have many. Other rows mention the primary group and privileged groups.
func directGroups(dst []byte, src *source, slots []int) []byte {
	l := list{dst: dst}
	if src.hasPrimary {
		l.node(src.graph, src.primary[0])
	} else if id, ok := primarySID(src, slots[0]); ok {
		l.sid(id)
	}
	if src.inGraph {
		for _, n := range src.graph.GroupsOf(src.node) {
			if !src.hasPrimary || n != src.primary[0] {
				l.node(src.graph, n)
			}
		}
	}
	return l.end()
}

// groups returns the groups of an object that grant it privileges: those that list it, and its primary
// group. A distribution group has none.
func (src *source) groups() (listed, primary []membership.Node) {
	if src.inGraph {
		if src.graph.IsDistributionGroup(src.node) {
			return nil, nil
		}
		listed = src.graph.GroupsOf(src.node)
	}
	if src.hasPrimary {
		primary = src.primary[:]
	}
	return listed, primary
}

// privilegedGroups appends the privileged groups of an object: direct and nested ones.
func privilegedGroups(dst []byte, src *source, _ []int) []byte {
	p := src.graph.Privileges(src.groups())
	if p.IsEmpty() {
		return dst
	}
	direct, nested := src.graph.DirectRoles(p), src.graph.NestedRoles(p)
	dst = append(dst, '{')
	if len(direct) > 0 {
		dst = appendRoleGroups(append(dst, `"direct":`...), src, direct)
	}
	if len(direct) > 0 && len(nested) > 0 {
		dst = append(dst, ',')
	}
	if len(nested) > 0 {
		dst = appendRoleGroups(append(dst, `"nested":`...), src, nested)
	}
	return append(dst, '}')
}

// appendRoleGroups appends and mentions the groups of roles.
func appendRoleGroups(dst []byte, src *source, roles []membership.Role) []byte {
	l := list{dst: dst}
	for _, role := range roles {
		n := src.graph.RoleGroup(role)
		l.node(src.graph, n)
		src.mentionNode(n)
	}
	return l.end()
}

// appendNodes appends and mentions objects.
func appendNodes(dst []byte, src *source, nodes []membership.Node) []byte {
	return appendMembers(dst, src, nodes, func(membership.Kind) bool { return true })
}

// appendMembers appends objects, and mentions those of some kinds.
func appendMembers(dst []byte, src *source, nodes []membership.Node, mentions func(membership.Kind) bool) []byte {
	l := list{dst: dst}
	for _, n := range nodes {
		l.node(src.graph, n)
		if mentions(src.graph.Kind(n)) {
			src.mentionNode(n)
		}
	}
	return l.end()
}

func isNoUser(kind membership.Kind) bool { return kind != membership.KindUser }

// appendWithoutSID appends the number of members without a SID, such as contacts.
func appendWithoutSID(dst []byte, src *source, nodes []membership.Node) []byte {
	count := 0
	for count < len(nodes) && !src.graph.HasSID(nodes[count]) { // the graph lists them first
		count++
	}
	if count == 0 {
		return dst
	}
	return strconv.AppendInt(dst, int64(count), 10)
}

// groupMembers does not mention users, because they are assets of their own.
func groupMembers(dst []byte, src *source, _ []int) []byte {
	return appendMembers(dst, src, src.members(), isNoUser)
}

func membersWithoutSID(dst []byte, src *source, _ []int) []byte {
	return appendWithoutSID(dst, src, src.members())
}

func (src *source) members() []membership.Node {
	if !src.inGraph {
		return nil
	}
	return src.graph.Members(src.node)
}

func memberOf(dst []byte, src *source, _ []int) []byte {
	if !src.inGraph {
		return dst
	}
	return appendNodes(dst, src, src.graph.GroupsOf(src.node))
}

func (src *source) nesting() (membership.Nesting, bool) {
	if !src.inGraph {
		return membership.Nesting{}, false
	}
	return src.graph.Nesting(src.node)
}

func nestingDepth(dst []byte, src *source, _ []int) []byte {
	if nesting, ok := src.nesting(); ok {
		return strconv.AppendUint(dst, uint64(nesting.Depth), 10)
	}
	return dst
}

func isEmpty(dst []byte, src *source, _ []int) []byte {
	if nesting, ok := src.nesting(); ok {
		return strconv.AppendBool(dst, nesting.Empty)
	}
	return dst
}

func inCycle(dst []byte, src *source, _ []int) []byte {
	if nesting, ok := src.nesting(); ok {
		return strconv.AppendBool(dst, nesting.InCycle)
	}
	return dst
}

func roleID(dst []byte, src *source, _ []int) []byte {
	dst = src.sid.AppendText(append(dst, '"'))
	return append(append(dst, roleSuffix...), '"')
}

func roleGUID(dst []byte, src *source, _ []int) []byte {
	return appendQuoted(dst, RoleGUID(src.guid))
}

func roleName(dst []byte, src *source, _ []int) []byte {
	return appendEnum(dst, src.roleMembers.Role.String())
}

func rolePrivileged(dst []byte, src *source, _ []int) []byte {
	return strconv.AppendBool(dst, src.roleMembers.Role.IsPrivileged())
}

func roleMembers(dst []byte, src *source, _ []int) []byte {
	if members := src.roleMembers.Members; len(members) > maxNamedUsers {
		return appendMembers(dst, src, members, isNoUser)
	}
	return appendNodes(dst, src, src.roleMembers.Members)
}

func roleMembersWithoutSID(dst []byte, src *source, _ []int) []byte {
	return appendWithoutSID(dst, src, src.roleMembers.Members)
}

// foreignMembers appends the members from other domains.
func foreignMembers(dst []byte, src *source, _ []int) []byte {
	l := list{dst: dst}
	for _, n := range src.roleMembers.Members {
		if src.graph.Kind(n) == membership.KindForeign {
			l.node(src.graph, n)
		}
	}
	return l.end()
}

func roleGroups(dst []byte, src *source, _ []int) []byte {
	return appendNodes(dst, src, src.roleMembers.Groups)
}

// interval appends a duration in seconds. The directory stores durations as negative counts
// of 100 ns; the minimum means forever, which is left out.
func interval(dst []byte, src *source, slots []int) []byte {
	const forever = -1 << 63
	n, ok := parseFirst(src, slots[0], parseInterval)
	if !ok || n == forever {
		return dst
	}
	return strconv.AppendInt(dst, -n/10_000_000, 10)
}

func parseInterval(v []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil && n <= 0
}

// The bits of pwdProperties (MS-SAMR 2.2.3.9).
const (
	propertyComplex    = 0x1
	propertyReversible = 0x10
)

func passwordProperty(bit int64) value {
	return func(dst []byte, src *source, slots []int) []byte {
		if n, ok := parseFirst(src, slots[0], parseProperties); ok {
			return strconv.AppendBool(dst, n&bit != 0)
		}
		return dst
	}
}

func parseProperties(v []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil
}

var (
	trustDirections = []string{"DISABLED", "INBOUND", "OUTBOUND", "BIDIRECTIONAL"}   // MS-ADTS 6.1.6.7.12
	trustTypes      = []string{"", "DOWNLEVEL", "UPLEVEL", "MIT", "DCE", "ENTRA_ID"} // MS-ADTS 6.1.6.7.15
)

const trustOutbound = 2 // bit of trustDirection

func enumerated(names []string) value {
	return func(dst []byte, src *source, slots []int) []byte {
		name, ok := parseFirst(src, slots[0], func(v []byte) (string, bool) {
			n, err := strconv.Atoi(string(v))
			if err != nil || n < 0 || n >= len(names) {
				return "", false
			}
			return names[n], names[n] != ""
		})
		if !ok {
			return dst
		}
		return appendEnum(dst, name)
	}
}

// trustFlag is a bit of trustAttributes (MS-ADTS 6.1.6.7.9).
type trustFlag uint32

const (
	trustQuarantined      trustFlag = 0x4
	trustForestTransitive trustFlag = 0x8
	trustTreatAsExternal  trustFlag = 0x40
)

var trustFlags = []namedFlag[trustFlag]{
	{0x1, "NON_TRANSITIVE"},
	{0x2, "UPLEVEL_ONLY"},
	{trustQuarantined, "QUARANTINED_DOMAIN"},
	{trustForestTransitive, "FOREST_TRANSITIVE"},
	{0x10, "CROSS_ORGANIZATION"},
	{0x20, "WITHIN_FOREST"},
	{trustTreatAsExternal, "TREAT_AS_EXTERNAL"},
	{0x80, "USES_RC4_ENCRYPTION"},
	{0x100, "USES_AES_KEYS"},
	{0x200, "CROSS_ORGANIZATION_NO_TGT_DELEGATION"},
	{0x400, "PIM_TRUST"},
	{0x800, "CROSS_ORGANIZATION_ENABLE_TGT_DELEGATION"},
	{0x1000, "DISABLE_AUTH_TARGET_VALIDATION"},
}

func parseTrust(v []byte) (trustFlag, bool) {
	n, err := strconv.ParseInt(string(v), 10, 32)
	if err != nil {
		return 0, false
	}
	return trustFlag(n), true
}

func trustAttributes(dst []byte, src *source, slots []int) []byte {
	flags, _ := parseFirst(src, slots[0], parseTrust)
	return appendNames(dst, flags, trustFlags)
}

// sidFiltering appends which SIDs of a trusted domain are accepted (MS-PAC 4.1.2.2). DOMAIN:
// only those of that domain. FOREST: those of its forest. RELAXED: those of its forest and
// SID history. It appends nothing for a trust that is not outbound.
func sidFiltering(dst []byte, src *source, slots []int) []byte {
	flags, ok := parseTrust(src.entry.First(slots[0])) // a malformed value is counted by trustAttributes
	direction, err := strconv.Atoi(string(src.entry.First(slots[1])))
	switch {
	case !ok || err != nil || direction&trustOutbound == 0:
		return dst
	case flags&trustQuarantined != 0:
		return appendEnum(dst, "DOMAIN")
	case flags&trustForestTransitive != 0 && flags&trustTreatAsExternal != 0:
		return appendEnum(dst, "RELAXED")
	case flags&trustForestTransitive != 0:
		return appendEnum(dst, "FOREST")
	default:
		return appendEnum(dst, "NONE")
	}
}

const ridReadOnlyControllers = 521

func readOnlyController(dst []byte, src *source, slots []int) []byte {
	rid, ok := primaryRID(src, slots[0])
	if !ok {
		return dst
	}
	return strconv.AppendBool(dst, rid == ridReadOnlyControllers)
}

// enabledFeature appends the state of an optional feature. The feature is disabled only if
// its GUID, which every feature has, is readable; otherwise the state is unknown.
func enabledFeature(dst []byte, src *source, slots []int) []byte {
	switch {
	case len(src.entry.First(slots[0])) > 0:
		return appendEnum(dst, "ENABLED")
	case len(src.entry.First(slots[1])) > 0:
		return appendEnum(dst, "DISABLED")
	}
	return dst
}

// completeGraph returns a value that is left out if the graph lacks memberships.
func completeGraph(v value) value {
	return func(dst []byte, src *source, slots []int) []byte {
		if src.partial {
			return dst
		}
		return v(dst, src, slots)
	}
}
