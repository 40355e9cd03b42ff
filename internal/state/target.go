package state

import "go.etcd.io/bbolt"

// Target returns whose deliveries the file records; "" while it records none.
func (s *Store) Target() (target string, err error) {
	err = s.view("read target", func(tx *bbolt.Tx) error {
		target = string(tx.Bucket(bucketMeta).Get(keyTarget))
		return nil
	})
	return target, err
}

// ChangeTarget makes the file one of deliveries to target, and forgets what was
// delivered to another: that is not there.
func (s *Store) ChangeTarget(target string) error {
	err := s.update("change target", func(c change) error {
		for _, name := range append(graphBuckets, bucketIndex, bucketOpen, bucketDue, bucketRejections, bucketHeld, bucketWatermarks) {
			if err := c.empty(name); err != nil {
				return err
			}
		}
		for _, key := range [][]byte{keyFullPass, keyGraph} {
			if err := c.delete(bucketMeta, key); err != nil {
				return err
			}
		}
		return c.put(bucketMeta, keyTarget, []byte(target))
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.open)
	}
	return err
}
