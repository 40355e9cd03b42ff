package identity

import "testing"

func TestMergeLogons(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ older, newer, want Logons }{
		"nothing known":        {},
		"first logon":          {newer: Logons{Last: 5}, want: Logons{Last: 5}},
		"times never decrease": {Logons{Last: 7, LastFailed: 9}, Logons{Last: 6, LastFailed: 8}, Logons{Last: 7, LastFailed: 9}},
		"times increase":       {Logons{Last: 7, LastFailed: 9}, Logons{Last: 8, LastFailed: 10}, Logons{Last: 8, LastFailed: 10}},
		"count decreases":      {Logons{Failed: 3, HasFailed: true}, Logons{HasFailed: true}, Logons{HasFailed: true}},
		"count is kept":        {Logons{Failed: 3, HasFailed: true}, Logons{Last: 1}, Logons{Last: 1, Failed: 3, HasFailed: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.older.Merge(c.newer); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
