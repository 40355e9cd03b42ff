package state

import (
	"bytes"
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// Container is a container of privileged objects.
type Container struct {
	GUID ad.GUID
	// Descriptor is a hash of the container's security descriptor; 0: it was unreadable.
	Descriptor uint64
}

// Containers are the containers of privileged objects, which every run reads.
type Containers struct {
	List []Container
	// InheritedAt is when a run last found that one of the descriptors differs, so that those of
	// objects below it may differ, too. Zero: those have been read since. It is in whole seconds.
	InheritedAt time.Time
	// Incomplete is whether there are other containers, which the account cannot see, or which are
	// too many.
	Incomplete bool
}

// incompleteBit is set in the stored time if the containers are incomplete.
const incompleteBit = 1 << 63

// containerSize is the size of a stored container.
const containerSize = len(ad.GUID{}) + 8

// Containers returns the recorded containers, or the zero value.
func (s *Store) Containers() (c Containers, err error) {
	err = s.view("read containers", func(tx *bbolt.Tx) error {
		c = decodeContainers(get(tx, bucketMeta, keyContainers))
		return nil
	})
	return c, err
}

// encode returns the time with incompleteBit, and then the containers.
func (c Containers) encode() []byte {
	header := uint64(max(0, c.InheritedAt.Unix())) // 0: never
	if c.Incomplete {
		header |= incompleteBit
	}
	value := binary.BigEndian.AppendUint64(nil, header)
	for _, container := range c.List {
		value = binary.BigEndian.AppendUint64(append(value, container.GUID[:]...), container.Descriptor)
	}
	return value
}

func decodeContainers(value []byte) (c Containers) {
	if len(value) < 8 {
		return c
	}
	header := binary.BigEndian.Uint64(value)
	c.Incomplete = header&incompleteBit != 0
	if seconds := header &^ incompleteBit; seconds > 0 {
		c.InheritedAt = time.Unix(int64(seconds), 0).UTC()
	}
	for value = value[8:]; len(value) >= containerSize; value = value[containerSize:] {
		c.List = append(c.List, Container{ad.GUID(value), binary.BigEndian.Uint64(value[len(ad.GUID{}):])})
	}
	return c
}

// putContainers replaces the recorded containers, if they differ.
func putContainers(c change, containers *Containers) error {
	if containers == nil {
		return nil
	}
	value := containers.encode()
	if bytes.Equal(c.Bucket(bucketMeta).Get(keyContainers), value) {
		return nil
	}
	return c.put(bucketMeta, keyContainers, value)
}
