package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	refused := Errorf(Refused, "bind: %w", errors.New("wrong password"))
	for _, test := range []struct {
		name string
		err  error
		want Class
	}{
		{"classified", refused, Refused},
		{"wrapped", fmt.Errorf("run: %w", refused), Refused},
		{"outermost wins", New(Incomplete, refused), Incomplete},
		{"canceled context", fmt.Errorf("search: %w", context.Canceled), Canceled},
		{"deadline", context.DeadlineExceeded, Transient},
		{"unknown", errors.New("x"), Transient},
		{"none", nil, Done},
	} {
		if got := Of(test.err); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
