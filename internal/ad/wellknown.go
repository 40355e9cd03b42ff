package ad

import "encoding/binary"

// wellKnownNames has the names of the principals that are the same in every domain and have no
// object there, or only one that is named by the SID (MS-DTYP 2.4.2.4). Their keys are binary SIDs.
var wellKnownNames = func() map[string]string {
	names := map[string]string{}
	for _, w := range []struct {
		authority byte
		name      string
		sub       []uint32
	}{
		{0, "Nobody", []uint32{0}},
		{1, "Everyone", []uint32{0}},
		{2, "Local", []uint32{0}},
		{2, "Console Logon", []uint32{1}},
		{3, "Creator Owner", []uint32{0}},
		{3, "Creator Group", []uint32{1}},
		{3, "Owner Rights", []uint32{4}},
		{5, "Dialup", []uint32{1}},
		{5, "Network", []uint32{2}},
		{5, "Batch", []uint32{3}},
		{5, "Interactive", []uint32{4}},
		{5, "Service", []uint32{6}},
		{5, "Anonymous Logon", []uint32{7}},
		{5, "Proxy", []uint32{8}},
		{5, "Enterprise Domain Controllers", []uint32{9}},
		{5, "Self", []uint32{10}},
		{5, "Authenticated Users", []uint32{11}},
		{5, "Restricted", []uint32{12}},
		{5, "Terminal Server User", []uint32{13}},
		{5, "Remote Interactive Logon", []uint32{14}},
		{5, "This Organization", []uint32{15}},
		{5, "IUSR", []uint32{17}},
		{5, "System", []uint32{18}},
		{5, "Local Service", []uint32{19}},
		{5, "Network Service", []uint32{20}},
		{5, "NTLM Authentication", []uint32{64, 10}},
		{5, "SChannel Authentication", []uint32{64, 14}},
		{5, "Digest Authentication", []uint32{64, 21}},
		{5, "All Services", []uint32{80, 0}},
		{5, "Compounded Authentication", []uint32{21, 0, 0, 0, 496}},
		{5, "Claims Valid", []uint32{21, 0, 0, 0, 497}},
		{5, "Other Organization", []uint32{1000}},
		{18, "Authentication Authority Asserted Identity", []uint32{1}},
		{18, "Service Asserted Identity", []uint32{2}},
		{18, "Fresh Public Key Identity", []uint32{3}},
		{18, "Key Trust Identity", []uint32{4}},
		{18, "Key Property MFA", []uint32{5}},
		{18, "Key Property Attestation", []uint32{6}},
	} {
		sid := SID{sidRevision, byte(len(w.sub)), 0, 0, 0, 0, 0, w.authority}
		for _, sub := range w.sub {
			sid = binary.LittleEndian.AppendUint32(sid, sub)
		}
		names[string(sid)] = w.name
	}
	return names
}()

// WellKnownName returns the English name of a principal that is the same in every domain, such as
// Authenticated Users (S-1-5-11), or "". It does not name groups such as Administrators, which are
// objects of the domain.
func (s SID) WellKnownName() string { return wellKnownNames[string(s)] }
