// Package domaincontroller is a domain controller in the process, for tests, trials and
// the demo. It serves one domain with generated users and groups over LDAP.
//
// It answers the connector's requests as Active Directory does; package
// test/conformance compares the two. LDAP clients cannot change the directory. The
// methods of Server do.
//
// It implements no more of LDAP than that. It accepts simple binds only, its
// continuation references lead to no server, and it does not replicate.
package domaincontroller

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Options say what is in the directory and who may read it.
type Options struct {
	Users, Groups int    // generated, beside those that every domain is born with
	Seed          uint64 // the same seed makes the same directory, its times relative to Now

	// BindDN and Password are of the one account that may bind at first. It is made
	// with the directory, its containers included; "": CN=svc-qualys,OU=Service in
	// the domain. Without a password nobody may bind.
	BindDN, Password string
	ReadsDeleted     bool // that account may list Deleted Objects and read what is there

	Now func() time.Time // nil: time.Now
}

// Server is a domain controller of one domain, as far as the connector looks:
// LDAP, LDAPS and StartTLS, rootDSE, simple binds, searches. Reading is the only
// thing that LDAP can do to it; changes come through its methods, which may be
// called at any time. Names are distinguished names, as LDAP writes them.
type Server struct {
	options     Options
	certificate *x509.Certificate
	tls         *tls.Config

	mu           sync.RWMutex
	root         *object // the domain
	deleted      *object // its Deleted Objects
	settings     *object // NTDS Settings of this domain controller
	policies     *object // Password Settings Container
	objects      []*object
	byGUID       map[ad.GUID]*object
	bySID        map[string]*object // of groups
	passwords    map[*object]string
	service      *object // the account of the options
	highest      ad.USN
	invocationID ad.GUID
	domainSID    string
	nextRID      uint32
	random       *rand.Rand

	serving serving
}

// The domain and its one controller.
const (
	domainName = "corp.example.com"
	domainDN   = "DC=corp,DC=example,DC=com"
	flatName   = "CORP" // for NetBIOS
	hostName   = "dc1." + domainName
)

// firstUSN is where a domain controller stands once it is promoted, about.
const firstUSN = 12_288

// firstRID is the first that a domain gives to an account of its own.
const firstRID = 1103

// New makes a directory. It panics when BindDN is no name: it is the
// program's own.
func New(options Options) *Server {
	if options.Now == nil {
		options.Now = time.Now
	}
	d := &Server{
		options:   options,
		byGUID:    map[ad.GUID]*object{},
		bySID:     map[string]*object{},
		passwords: map[*object]string{},
		highest:   firstUSN,
		nextRID:   firstRID,
		random:    rand.New(rand.NewPCG(options.Seed, 0x6469726563746f72)),
	}
	if options.BindDN == "" {
		d.options.BindDN = "CN=svc-qualys,OU=Service," + domainDN
	}
	d.serving.connections = map[net.Conn]struct{}{}
	d.certificate, d.tls = newCertificate(hostName, domainName)
	d.invocationID = d.newGUID()
	d.domainSID = sidOf(21, d.random.Uint32(), d.random.Uint32(), d.random.Uint32())
	d.found()
	if err := d.addService(); err != nil {
		panic(fmt.Errorf("sandbox: bind DN %s: %w", d.options.BindDN, err))
	}
	d.populate()
	return d
}

// Base is the naming context of the domain.
func (d *Server) Base() string { return d.root.dn() }

// BindDN is the account of the options.
func (d *Server) BindDN() string { return d.options.BindDN }

// Certificate is what the directory presents: it is its own issuer, and good for
// localhost, 127.0.0.1, ::1, the domain controller and the domain.
func (d *Server) Certificate() *x509.Certificate { return d.certificate }

// HighestUSN is the highest update sequence number given out so far.
func (d *Server) HighestUSN() ad.USN {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.highest
}

// InvocationID names the database whose update sequence numbers these are.
func (d *Server) InvocationID() ad.GUID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.invocationID
}

func (d *Server) newGUID() ad.GUID {
	var guid ad.GUID
	for i := range guid {
		guid[i] = byte(d.random.Uint32())
	}
	guid[7] = guid[7]&0x0f | 0x40 // version 4; this field is little-endian
	guid[8] = guid[8]&0x3f | 0x80
	return guid
}

// addService makes the account that may bind, and the containers it is in.
func (d *Server) addService() error {
	dn, err := ldap.ParseDN(d.options.BindDN)
	if err != nil {
		return err
	}
	for i := len(dn.RDNs) - len(d.root.suffix) - 1; i > 0; i-- {
		parent := joinRDNs(dn.RDNs[i:])
		if d.lookup(parent) == nil {
			kind := "organizationalUnit"
			if rdnOf(dn.RDNs[i]).attribute == "CN" {
				kind = "container"
			}
			if err := d.add(Object{DN: parent, Attributes: map[string][]string{"objectClass": {kind}}}); err != nil {
				return err
			}
		}
	}
	err = d.add(Object{DN: d.options.BindDN, Attributes: map[string][]string{
		"objectClass": {"user"}, "description": {"Reads users and groups for the inventory"},
		"userAccountControl": {"66048"}, // a normal account whose password never expires
	}})
	if err != nil {
		return err
	}
	d.service = d.lookup(d.options.BindDN)
	if d.options.Password != "" {
		d.passwords[d.service] = d.options.Password
		d.service.attributes = d.service.attributes.with(attributePwdLastSet, fileTimeOf(d.options.Now().Add(-24*time.Hour)))
	}
	return nil
}
