// Package domaincontroller is a domain controller in the process, for tests, trials and
// the demo. It serves one domain with generated users and groups over LDAP.
//
// It answers the connector's requests as Active Directory does; package
// test/conformance compares the two. LDAP clients cannot change the directory. The
// methods of Server do.
//
// It implements no more of LDAP than that. It accepts simple binds only, its
// continuation references lead to no server. The controllers of a Domain replicate. Others do
// not: they know each other by AddPeer, and the caller applies each change to each of them.
package domaincontroller

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Options describe the content of the directory and the account that may read it.
type Options struct {
	// Name is the host name of the controller in the domain. Controllers of one domain have
	// equal seeds and different names. They generate equal identifiers, except for
	// their own objects and invocation IDs. Default: dc1.
	Name          string
	Users, Groups int    // generated, besides the built-in ones
	Seed          uint64 // equal seeds generate equal directories, with times relative to Now

	// BindDN and Password belong to the account that can bind. New creates the account
	// and its containers. Default: CN=svc-qualys,OU=Service in the domain. Without a
	// password, no account can bind.
	BindDN, Password string
	ReadsDeleted     bool // the account may read the Deleted Objects container and its objects

	// Host is the dNSHostName of the controller in the directory. Without DNS it can be an IP
	// address. Default: Name in the domain.
	Host string
	// ForestRoot is the DN of the root domain of the forest. Default: the domain itself.
	ForestRoot string
	// ReadOnly makes it a read-only domain controller. It has all attributes nevertheless.
	ReadOnly bool

	Now func() time.Time // nil: time.Now

	authority *authority // of a Domain; nil: the certificate is self-signed
}

// Server is a domain controller of one domain. It implements LDAP, LDAPS, StartTLS,
// rootDSE, simple binds and searches. Its methods are safe for concurrent use, and take
// distinguished names in LDAP's form.
type Server struct {
	options     Options
	certificate *x509.Certificate
	tls         *tls.Config

	mu         sync.RWMutex
	root       *object // the domain
	suffix     []rdn   // the DN of the domain
	deleted    *object // its Deleted Objects container
	servers    *object // container of the objects of the domain controllers
	settings   *object // NTDS Settings of this domain controller
	policies   *object // Password Settings Container
	configured *object // Directory Service, with the settings of the forest

	defaultDescriptor string // of objects without another one
	objects           []*object
	byGUID            map[ad.GUID]*object
	groupsBySID       map[string]*object
	passwords         map[*object]string
	hidden            map[*object]hiding // attributes that LDAP clients do not see, by base object
	unlisted          map[*object]bool   // containers whose contents LDAP clients do not see
	timeBound         []*object          // groups that have had time-bound members
	service           *object            // the account of Options.BindDN
	highest           ad.USN
	identity          controller
	invocationID      ad.GUID // of the database that assigned the update sequence numbers
	domainSID         string
	nextRID           uint32
	random            *rand.Rand // for what the controllers of the domain have in common
	ownRandom         *rand.Rand // for what only this one has
	peers             []*Server  // the other controllers of a Domain
	outgoing          []update   // to the peers

	countersMu sync.Mutex
	counters   Counters
}

// The domain and its domain controller.
const (
	domainName  = "corp.example.com"
	domainDN    = "DC=corp,DC=example,DC=com"
	netBIOSName = "CORP"
	defaultName = "dc1"
)

const (
	firstUSN = 12_288 // approximately the value after promotion
	firstRID = 1103   // of the first account that an administrator creates
)

// New returns a domain controller that does not listen yet. It panics if BindDN is
// invalid, because that is an error of the caller.
func New(options Options) *Server {
	if options.Now == nil {
		options.Now = time.Now
	}
	options.Name = cmp.Or(options.Name, defaultName)
	options.Host = cmp.Or(options.Host, hostName(options.Name))
	options.BindDN = cmp.Or(options.BindDN, "CN=svc-qualys,OU=Service,"+domainDN)
	d := &Server{
		options:     options,
		byGUID:      map[ad.GUID]*object{},
		groupsBySID: map[string]*object{},
		passwords:   map[*object]string{},
		highest:     firstUSN,
		nextRID:     firstRID,
		random:      rand.New(rand.NewPCG(options.Seed, 0x6469726563746f72)),
		ownRandom:   rand.New(rand.NewPCG(options.Seed, hashName(options.Name))),
	}
	d.certificate, d.tls = newCertificate(hostName(options.Name), options.Host, domainName, options.authority)
	d.invocationID = newGUID(d.ownRandom)
	d.domainSID = newSID(21, d.random.Uint32(), d.random.Uint32(), d.random.Uint32())
	d.createDomain()
	if err := d.createServiceAccount(); err != nil {
		panic(fmt.Errorf("create account %s: %w", options.BindDN, err))
	}
	d.generate()
	return d
}

// Base returns the DN of the domain, which is its naming context.
func (d *Server) Base() string { return d.root.dn() }

// BindDN returns the DN of the account that can bind.
func (d *Server) BindDN() string { return d.options.BindDN }

func newGUID(random *rand.Rand) ad.GUID {
	var guid ad.GUID
	for i := range guid {
		guid[i] = byte(random.Uint32())
	}
	guid[7] = guid[7]&0x0f | 0x40 // version 4; this field is little-endian
	guid[8] = guid[8]&0x3f | 0x80
	return guid
}

// createServiceAccount creates the account of Options.BindDN and its containers.
func (d *Server) createServiceAccount() error {
	dn, err := ldap.ParseDN(d.options.BindDN)
	if err != nil {
		return err
	}
	for i := len(dn.RDNs) - len(d.suffix) - 1; i > 0; i-- {
		container := formatDN(dn.RDNs[i:])
		if d.lookup(container) != nil {
			continue
		}
		class := "organizationalUnit"
		if newRDN(dn.RDNs[i]).attribute == "CN" {
			class = "container"
		}
		if err := d.Add(Object{DN: container, Attributes: map[string][]string{"objectClass": {class}}}); err != nil {
			return err
		}
	}
	err = d.Add(Object{DN: d.options.BindDN, Attributes: map[string][]string{
		"objectClass": {"user"}, "description": {"Reads users and groups for the inventory"},
		"userAccountControl": {"66048"}, // a normal account whose password never expires
	}})
	if err != nil {
		return err
	}
	d.service = d.lookup(d.options.BindDN)
	if d.options.Password != "" {
		d.passwords[d.service] = d.options.Password
		d.service.set("pwdLastSet", formatFileTime(d.options.Now().Add(-day)))
		d.service.set("lastLogonTimestamp", formatFileTime(d.options.Now().Add(-day))) // it is in use
	}
	return nil
}
