package domaincontroller

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// controller is the identity of a domain controller in the directory. It has three objects:
// a computer, a server below CN=Sites, and the NTDS Settings below that.
type controller struct {
	name, host                 string
	computer, server, settings ad.GUID
	sid                        string // of the computer
	invocationID               ad.GUID
	readOnly                   bool
}

func hostName(name string) string { return name + "." + domainName }

func hashName(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum64()
}

const firstControllerRID = 1000 // of the computer that becomes the first domain controller

// newIdentity returns the identity of this controller. The RIDs of further controllers are not
// from the pool of firstRID, so that the controllers assign equal SIDs.
func (d *Server) newIdentity() controller {
	c := controller{
		name: d.options.Name, host: d.options.Host, computer: newGUID(d.ownRandom), server: newGUID(d.ownRandom), settings: newGUID(d.ownRandom),
		invocationID: d.invocationID, readOnly: d.options.ReadOnly,
	}
	rid := uint32(firstControllerRID)
	if c.name != defaultName {
		rid = 1<<30 + d.ownRandom.Uint32N(1<<29)
	}
	c.sid = d.accountSID(rid)
	return c
}

// createController creates the objects of a domain controller, as far as they do not exist.
// It returns the NTDS Settings.
func (d *Server) createController(computers *object, c controller, created time.Time) *object {
	name := strings.ToUpper(c.name)
	if computers.children[rdn{"CN", name}.key()] == nil {
		w := wellKnownObject{Name: name, Kind: "532480", Description: "Domain controller", guid: c.computer}
		computer := d.createWellKnown(computers, "computer", w, c.sid, created)
		computer.set("dNSHostName", c.host)
		computer.set("sAMAccountName", name+"$")
		computer.set("operatingSystem", "Windows Server 2022 Standard")
		computer.set("operatingSystemVersion", "10.0 (20348)")
		computer.set("primaryGroupID", "516")
		if c.readOnly {
			computer.set("primaryGroupID", "521")
			computer.set("userAccountControl", "83890176") // a workstation trust account with a partial secrets account
		}
	}
	server := d.servers.children[rdn{"CN", name}.key()]
	if server == nil {
		server = d.createWithGUID(d.servers, "server", name, c.server, created)
		server.set("dNSHostName", c.host)
	}
	settings := server.children[rdn{"CN", "NTDS Settings"}.key()]
	if settings == nil {
		settings = d.createWithGUID(server, c.settingsClass(), "NTDS Settings", c.settings, created)
	}
	configuration := "CN=Configuration," + domainDN
	contexts := []string{domainDN, configuration, "CN=Schema," + configuration}
	if c.readOnly {
		settings.set("msDS-hasFullReplicaNCs", contexts...)
	} else {
		settings.set("msDS-hasMasterNCs", contexts...)
		settings.set("hasMasterNCs", contexts...)
	}
	settings.set("invocationId", string(c.invocationID[:]))
	settings.set("options", "1") // global catalog
	return settings
}

// settingsClass returns the class of the NTDS Settings.
func (c controller) settingsClass() string {
	if c.readOnly {
		return "nTDSDSARO"
	}
	return "nTDSDSA"
}

// SetPDCEmulator makes the controller with a name the PDC emulator of the domain (MS-ADTS
// 3.1.1.1.11), in this directory. By default, it is the controller with the default name.
func (d *Server) SetPDCEmulator(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.set("fSMORoleOwner", "CN=NTDS Settings,CN="+strings.ToUpper(name)+","+d.servers.dn())
	d.recordChange(d.root)
}

// controller returns the present identity of this controller.
func (d *Server) controller() controller {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c := d.identity
	c.invocationID = d.invocationID
	return c
}

// AddPeer lists another controller of the domain in this directory. If it is listed, AddPeer
// updates its invocation ID.
func (d *Server) AddPeer(other *Server) error {
	c := other.controller()
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.EqualFold(c.name, d.options.Name) {
		return fmt.Errorf("add controller %s: it has the name of this one", c.name)
	}
	computers := d.root.children[rdn{"OU", "Domain Controllers"}.key()]
	d.recordChange(d.createController(computers, c, d.options.Now().Add(-domainAge)))
	return nil
}

// RemovePeer removes the NTDS Settings of another controller, as its demotion does. Its
// computer and its server object stay.
func (d *Server) RemovePeer(other *Server) error {
	c := other.controller()
	d.mu.Lock()
	defer d.mu.Unlock()
	settings := d.byGUID[c.settings]
	if settings == nil || settings == d.settings {
		return fmt.Errorf("remove controller %s: it is not listed", c.name)
	}
	settings.detach()
	delete(d.byGUID, c.settings)
	d.objects = slices.DeleteFunc(d.objects, func(o *object) bool { return o == settings })
	d.highest++
	return nil
}
