package syncrun

import (
	"context"
	"math"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// FindUnreadable returns the attributes of a kind that every object has and none in the scope of
// the source shows. A run is refused if there are some.
func FindUnreadable(ctx context.Context, s *directory.Session, source Source, search SearchOptions, kind identity.Kind) ([]string, error) {
	c := &rightsCheck{
		source: source, search: search, readable: map[identity.Kind]bool{},
		session: &session{Session: s, lastUsed: time.Now(), idleLimit: math.MaxInt64}, // does not reconnect
	}
	return c.findUnreadable(ctx, kind)
}
