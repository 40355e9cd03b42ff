package domaincontroller

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Domain is the controllers of one domain. Changes replicate at once. What each controller
// counts for itself (lastLogon, logonCount, badPwdCount, badPasswordTime) does not replicate,
// except that the PDC emulator counts failed logons at the other controllers too.
type Domain struct {
	controllers []*Server

	mu sync.Mutex // a change reaches all controllers before the next one
}

// NewDomain returns a domain with one controller for each host: dc1, dc2, and so on. Their
// certificates are from one authority if there are several. Then the second one is the PDC
// emulator, so that the first one does not have the number of failed logons, and the latest logon
// of each generated account is on any of them.
func NewDomain(options Options, hosts ...string) *Domain {
	g := &Domain{}
	clock := options.Now
	if clock == nil {
		clock = time.Now
	}
	created := clock()
	options.Now = func() time.Time { return created } // so that replicated times are equal
	if len(hosts) > 1 {
		options.authority = newAuthority(domainName)
	}
	for n, host := range hosts {
		options.Name, options.Host = "dc"+strconv.Itoa(n+1), host
		g.controllers = append(g.controllers, New(options))
	}
	for _, d := range g.controllers {
		for _, peer := range g.controllers {
			if peer == d {
				continue
			}
			if err := d.AddPeer(peer); err != nil {
				panic(err) // their names differ
			}
			d.peers = append(d.peers, peer)
		}
		if len(hosts) > 1 {
			d.SetPDCEmulator("dc2")
		}
	}
	if len(hosts) > 1 {
		g.spreadLogons(rand.New(rand.NewPCG(options.Seed, 0x6c6f676f6e)))
	}
	for _, d := range g.controllers {
		d.options.Now = clock
	}
	return g
}

// Controllers returns the controllers in the order of their hosts.
func (g *Domain) Controllers() []*Server { return slices.Clone(g.controllers) }

// Add creates an object, as Server.Add does. It originates on the first controller.
func (g *Domain) Add(o Object) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.controllers[0].Add(o); err != nil {
		return err
	}
	created, err := g.controllers[0].Object(o.DN, replicatedIdentity...)
	if err != nil {
		return err
	}
	replica := Object{DN: o.DN, Attributes: maps.Clone(o.Attributes)}
	maps.Copy(replica.Attributes, created.Attributes)
	for _, d := range g.controllers[1:] {
		if err := d.addReplica(replica); err != nil {
			return err
		}
	}
	return nil
}

// addReplica adds a replica of an object. Until a logon, it has no attribute that does not
// replicate.
func (d *Server) addReplica(o Object) error {
	if err := d.Add(o); err != nil {
		return err
	}
	return d.changeLocally("replicate", o.DN, func(replica *object) error {
		for _, a := range replica.attributes {
			if attributeByName(a.name).Local {
				replica.set(a.name) // the set that the loop is over is immutable
			}
		}
		return nil
	})
}

// Change applies a change to each controller. It stops at the first error.
func (g *Domain) Change(apply func(*Server) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.controllers {
		if err := apply(d); err != nil {
			return err
		}
	}
	return nil
}

// spreadLogons leaves the latest logon and the failures of each generated account on one
// controller. The others have an older logon or none. The PDC emulator has all failures.
func (g *Domain) spreadLogons(random *rand.Rand) {
	first := g.controllers[0]
	for _, generated := range first.objects {
		latest := generated.attributes.integer("lastLogon")
		if !generated.is("user") || generated == first.service || latest == 0 && generated.attributes.integer("badPwdCount") == 0 {
			continue
		}
		home := g.controllers[random.IntN(len(g.controllers))]
		age := latest - fileTime(time.Unix(generated.created, 0))
		for _, d := range g.controllers {
			if d == home {
				continue
			}
			account := d.byGUID[generated.guid]
			if !d.isPDCEmulator() { // it counts the failures of all
				account.set("badPasswordTime")
				account.set("badPwdCount")
			}
			account.set("lastLogon")
			account.set("logonCount")
			if age > 0 && random.IntN(2) == 0 {
				account.set("lastLogon", strconv.FormatInt(latest-random.Int64N(age), 10))
				account.set("logonCount", "1")
			}
		}
	}
}
