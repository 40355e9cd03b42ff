// Package access finds the principals that control an object of the directory, by the object's
// security descriptor.
//
// It does no I/O and has no state. It evaluates one descriptor at a time: it does not combine the
// memberships of a principal, so a list has a group, and not the members of the group. The section
// "Who controls an object" of docs/posture.md compares the rights with those of BloodHound and PingCastle.
package access

import (
	"iter"

	"adconnector/internal/ad"
)

// Class is the class of the object that a descriptor belongs to. It decides which rights there
// are.
type Class byte

// The classes of objects.
const (
	// Domain is the head of the domain.
	Domain Class = iota
	// AdminSDHolder is the object whose descriptor the directory copies to the protected users
	// and groups (MS-ADTS 3.1.1.6.1.2).
	AdminSDHolder
	// Container is an organizational unit or another container.
	Container
	// User is a user or an inetOrgPerson.
	User
	// ServiceAccount is a managed service account: standalone, group or delegated. Their classes
	// are subclasses of computer.
	ServiceAccount
	// Group is a group.
	Group
	numClasses
)

// Right is a right over an object.
type Right byte

// The rights, in the order of their names.
const (
	// CreateChild: create accounts below the object: of the class user, inetOrgPerson or computer,
	// or managed service accounts. Akamai BadSuccessor, for all classes of accounts.
	CreateChild Right = iota
	// FullControl: all rights over the whole object. BloodHound GenericAll.
	FullControl
	// Owner: own the object. BloodHound Owns.
	Owner
	// ReplicationRights: read the secrets of the domain by replication. BloodHound DCSync (with
	// DS-Replication-Get-Changes-All) and SyncLAPSPassword (with -In-Filtered-Set).
	ReplicationRights
	// ResetPassword: set a new password without the old one. BloodHound ForceChangePassword.
	ResetPassword
	// WriteAllowedToAct: write msDS-AllowedToActOnBehalfOfOtherIdentity. BloodHound
	// AddAllowedToAct and WriteAccountRestrictions.
	WriteAllowedToAct
	// WriteDACL: write the access control list. BloodHound WriteDacl.
	WriteDACL
	// WriteKeyCredential: write msDS-KeyCredentialLink. BloodHound AddKeyCredentialLink.
	WriteKeyCredential
	// WriteMembers: write the attribute member, or add oneself to it. BloodHound AddMember and
	// AddSelf.
	WriteMembers
	// WriteOwner: take the ownership. BloodHound WriteOwner.
	WriteOwner
	numRights
)

var rightNames = [numRights]string{
	CreateChild:        "createChild",
	FullControl:        "fullControl",
	Owner:              "owner",
	ReplicationRights:  "replicationRights",
	ResetPassword:      "resetPassword",
	WriteAllowedToAct:  "writeAllowedToAct",
	WriteDACL:          "writeDacl",
	WriteKeyCredential: "writeKeyCredential",
	WriteMembers:       "writeMembers",
	WriteOwner:         "writeOwner",
}

// String returns the name of the right in assets.
func (r Right) String() string { return rightNames[r] }

// rightSet is a set of rights.
type rightSet uint16

func setOf(rights ...Right) (set rightSet) {
	for _, right := range rights {
		set |= 1 << right
	}
	return set
}

func (s rightSet) has(right Right) bool { return s&(1<<right) != 0 }

// rightsOf has the rights that exist for each class. [Evaluate] finds no holders of the others.
var rightsOf = [numClasses]rightSet{
	Domain:         setOf(CreateChild, FullControl, Owner, ReplicationRights, WriteDACL, WriteOwner),
	AdminSDHolder:  setOf(FullControl, Owner, ResetPassword, WriteAllowedToAct, WriteDACL, WriteKeyCredential, WriteMembers, WriteOwner),
	Container:      setOf(CreateChild, FullControl, Owner, WriteDACL, WriteOwner),
	User:           setOf(FullControl, Owner, ResetPassword, WriteAllowedToAct, WriteDACL, WriteKeyCredential, WriteOwner),
	ServiceAccount: setOf(FullControl, Owner, ResetPassword, WriteAllowedToAct, WriteDACL, WriteKeyCredential, WriteOwner),
	Group:          setOf(FullControl, Owner, WriteDACL, WriteMembers, WriteOwner),
}

// Holders has the principals that hold each right, in the order of [ad.SID.Compare], without
// duplicates. The lists may share memory with each other and with the descriptor.
type Holders [numRights][]ad.SID

// Domains are the domains whose administrators are left out of the lists.
type Domains struct {
	Own ad.SID // that of the object; nil: unknown, its administrators are not left out
	// ForestRoot is the root of the forest, if that is another domain. nil: unknown, its
	// administrators are not left out.
	ForestRoot ad.SID
}

// All ranges over all rights in the order of their names.
func (h *Holders) All() iter.Seq2[Right, []ad.SID] {
	return func(yield func(Right, []ad.SID) bool) {
		for right, sids := range h {
			if !yield(Right(right), sids) {
				return
			}
		}
	}
}
