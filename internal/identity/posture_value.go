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

// principal appends an item with a SID, and with the name and kind of the object that has it in the
// graph.
func (l *list) principal(src *source, id ad.SID) {
	if !l.next() {
		return
	}
	l.dst = appendQuoted(append(l.dst, `{"sid":`...), id)
	if src.graph != nil {
		if n, found := src.graph.FindSID(id); found {
			l.dst = appendKind(appendName(l.dst, src.graph, n), src.graph.Kind(n))
			l.dst = append(l.dst, '}')
			return
		}
	}
	if name := id.WellKnownName(); name != "" {
		l.dst = appendKind(append(append(append(l.dst, `,"name":"`...), name...), '"'), membership.KindWellKnown)
	}
	l.dst = append(l.dst, '}')
}

// principals appends an item for each SID, sorted by SID.
func principals(dst []byte, src *source, ids []ad.SID) []byte {
	slices.SortFunc(ids, ad.SID.Compare)
	l := list{dst: dst}
	for _, id := range ids {
		l.principal(src, id)
	}
	return l.end()
}

// appendName appends the name of an object as a member of an item, if it is known.
func appendName(dst []byte, g *membership.Graph, n membership.Node) []byte {
	const key = `,"name":`
	var buffer [128]byte
	name := g.AppendName(buffer[:0], n)
	if len(name) == 0 {
		return dst
	}
	return appendString(append(dst, key...), name)
}

// appendKind appends a kind as a member of an item, if it is known.
func appendKind(dst []byte, kind membership.Kind) []byte {
	if kind == membership.KindUnknown {
		return dst
	}
	return appendEnum(append(dst, `,"kind":`...), kind.String())
}

func sids(dst []byte, src *source, slots []int) []byte {
	var ids []ad.SID
	for _, v := range sortedValues(src, slots[0]) {
		if id, ok := ad.ParseSID(v); ok {
			ids = append(ids, id)
		} else {
			src.unparsed++
		}
	}
	return principals(dst, src, ids)
}

func optionalSID(dst []byte, src *source, slots []int) []byte {
	if id, ok := parseFirst(src, slots[0], ad.ParseSID); ok {
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
		return principals(dst, src, src.descriptor.Granted(right))
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

// managedBy appends the principal in an extended DN, if it has a SID.
func managedBy(dst []byte, src *source, slots []int) []byte {
	var dn ad.ExtendedDN
	if !dn.Parse(src.entry.First(slots[0])) {
		return dst
	}
	if _, ok := dn.SID(); !ok {
		return dst
	}
	dst = appendNamedSID(dst, &dn)
	if src.graph != nil {
		if n, found := src.graph.Find(dn.GUID); found {
			dst = appendKind(dst, src.graph.Kind(n))
		}
	}
	return append(dst, '}')
}

// appendNamedSID appends the beginning of an item: the SID of an extended DN and the name in it.
func appendNamedSID(dst []byte, dn *ad.ExtendedDN) []byte {
	id, _ := dn.SID()
	dst = appendQuoted(append(dst, `{"sid":`...), id)
	if name := ad.RelativeName(dn.DN); len(name) > 0 {
		dst = appendString(append(dst, `,"name":`...), name)
	}
	return dst
}

// linkedPrincipals appends the principals in extended DNs, sorted by SID.
func linkedPrincipals(dst []byte, src *source, slots []int) []byte {
	type linked struct {
		id   ad.SID
		item []byte
	}
	var found []linked
	var dn ad.ExtendedDN
	for _, v := range sortedValues(src, slots[0]) {
		if !dn.Parse(v) {
			src.unparsed++
		} else if id, ok := dn.SID(); ok {
			found = append(found, linked{slices.Clone(id), append(appendNamedSID(nil, &dn), '}')})
		}
	}
	slices.SortFunc(found, func(a, b linked) int { return a.id.Compare(b.id) })
	l := list{dst: dst}
	for _, p := range found {
		if l.next() {
			l.dst = append(l.dst, p.item...)
		}
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

// node appends an item with the SID and the name of an object. It leaves out an object without a SID.
func (l *list) node(g *membership.Graph, n membership.Node) {
	if g.HasSID(n) && l.next() {
		l.dst = append(appendNode(l.dst, g, n), '}')
	}
}

// appendNode appends the beginning of an item: the SID and the name of an object.
func appendNode(dst []byte, g *membership.Graph, n membership.Node) []byte {
	dst = append(g.AppendSID(append(dst, `{"sid":"`...), n), '"')
	return appendName(dst, g, n)
}

// Limits of what a list of members has besides the SIDs, so that a list of any legitimate size fits
// in an asset.
const (
	maxNamedUsers   = 10_000  // in a longer list, users have no name and kind
	maxNamedMembers = 100_000 // in a longer list, no member has
)

// appendMembers appends members with their SIDs, names and kinds. The users in scope have assets of
// their own, with their names. The other members have none.
func appendMembers(dst []byte, src *source, nodes []membership.Node) []byte {
	g := src.graph
	l := list{dst: dst}
	for _, n := range nodes {
		if !g.HasSID(n) || !l.next() {
			continue
		}
		kind := g.Kind(n)
		if len(nodes) > maxNamedMembers || len(nodes) > maxNamedUsers && kind == membership.KindUser {
			l.dst = append(g.AppendSID(append(l.dst, `{"sid":"`...), n), `"}`...)
			continue
		}
		l.dst = append(appendKind(appendNode(l.dst, g, n), kind), '}')
	}
	return l.end()
}

// directGroups appends an account's groups: the primary group, which does not list the
// account as a member, and then the others.
func directGroups(dst []byte, src *source, slots []int) []byte {
	l := list{dst: dst}
	primary, known := src.primaryNode(slots)
	if known {
		l.node(src.graph, primary)
	} else if id, ok := primarySID(src, slots[0]); ok && l.next() {
		l.dst = append(appendQuoted(append(l.dst, `{"sid":`...), id), '}')
	}
	if src.inGraph {
		for _, n := range src.graph.GroupsOf(src.node) {
			if !known || n != primary {
				l.node(src.graph, n)
			}
		}
	}
	return l.end()
}

// primaryNode returns the primary group of an account, if the graph has it. Groups have no primary
// group, so their rows have no slots.
func (src *source) primaryNode(slots []int) (membership.Node, bool) {
	if len(slots) == 0 {
		return 0, false
	}
	rid, ok := primaryRID(src, slots[0])
	if !ok {
		return 0, false
	}
	return src.graph.PrimaryGroup(src.sid, rid)
}

// privilegedGroups appends the privileged groups of an object: direct and nested ones.
func privilegedGroups(dst []byte, src *source, slots []int) []byte {
	var groups []membership.Node
	if src.inGraph {
		if src.graph.IsDistributionGroup(src.node) {
			return dst
		}
		groups = src.graph.GroupsOf(src.node)
	}
	var primary [1]membership.Node
	count := 0
	if n, known := src.primaryNode(slots); known {
		primary[0], count = n, 1
	}
	p := src.graph.Privileges(groups, primary[:count])
	if p.IsEmpty() {
		return dst
	}
	direct, nested := src.graph.DirectRoles(p), src.graph.NestedRoles(p)
	dst = append(dst, '{')
	if len(direct) > 0 {
		l := list{dst: append(dst, `"direct":`...)}
		for _, role := range direct {
			l.node(src.graph, src.graph.RoleGroup(role))
		}
		if dst = l.end(); len(nested) > 0 {
			dst = append(dst, ',')
		}
	}
	if len(nested) > 0 {
		l := list{dst: append(dst, `"nested":`...)}
		for _, role := range nested {
			l.privilege(src.graph, role, groups, primary[:count])
		}
		dst = l.end()
	}
	return append(dst, '}')
}

// maxPath is the number of groups that a path shows. Without a limit, the paths of groups that nest
// very deep would be large.
const maxPath = 20

// privilege appends an item with the group of a nested role and the path to it.
func (l *list) privilege(g *membership.Graph, role membership.Role, groupLists ...[]membership.Node) {
	if !l.next() {
		return
	}
	var buffer [maxPath]membership.Node
	path, omitted := g.Path(buffer[:0], role, maxPath, groupLists...)
	groups := list{dst: append(appendNode(l.dst, g, g.RoleGroup(role)), `,"path":`...)}
	for _, n := range path {
		groups.node(g, n)
	}
	l.dst = groups.end()
	if omitted > 0 {
		l.dst = strconv.AppendInt(append(l.dst, `,"pathOmits":`...), int64(omitted), 10)
	}
	l.dst = append(l.dst, '}')
}

func appendNodes(dst []byte, src *source, nodes []membership.Node) []byte {
	l := list{dst: dst}
	for _, n := range nodes {
		l.node(src.graph, n)
	}
	return l.end()
}

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

func groupMembers(dst []byte, src *source, _ []int) []byte {
	return appendMembers(dst, src, src.members())
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
	return appendMembers(dst, src, src.roleMembers.Members)
}

func roleMembersWithoutSID(dst []byte, src *source, _ []int) []byte {
	return appendWithoutSID(dst, src, src.roleMembers.Members)
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
