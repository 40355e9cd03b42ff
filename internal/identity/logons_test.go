package identity

import (
	"encoding/json"
	"testing"

	"adconnector/internal/ad"
)

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

func TestLogonsOfAccount(t *testing.T) {
	t.Parallel()
	const (
		first, second, third             = 134398063938451234, 134398063938461234, 134398063938471234
		firstText, secondText, thirdText = "2026-11-22T07:33:13.845Z", "2026-11-22T07:33:13.846Z", "2026-11-22T07:33:13.847Z"
	)
	number := func(n float64) *float64 { return &n }
	type sent struct {
		Last       string   `json:"lastSuccessfulLoginAt"`
		LastFailed string   `json:"lastFailedPasswordAttemptAt"`
		Failed     *float64 `json:"failedPasswordAttemptCount"`
	}
	for name, c := range map[string]struct {
		entry      attributes
		known      Logons
		sent       sent
		logons     Logons
		replicated ad.FileTime
	}{
		"never logged on":                  {entry: attributes{"lastLogon": {"0"}, "lastLogonTimestamp": nil}},
		"lastLogon is later":               {attributes{"lastLogon": {"134398063938461234"}, "lastLogonTimestamp": {"134398063938451234"}}, Logons{}, sent{Last: secondText}, Logons{Last: second}, first},
		"lastLogonTimestamp is later":      {attributes{"lastLogon": {"134398063938451234"}, "lastLogonTimestamp": {"134398063938461234"}}, Logons{}, sent{Last: secondText}, Logons{Last: second}, second},
		"only lastLogonTimestamp":          {attributes{"lastLogon": nil, "lastLogonTimestamp": {"134398063938451234"}}, Logons{}, sent{Last: firstText}, Logons{Last: first}, first},
		"sent value is later":              {attributes{"lastLogon": {"134398063938451234"}}, Logons{Last: third}, sent{Last: thirdText}, Logons{Last: third}, 0},
		"sent value stays without a value": {attributes{"lastLogon": nil}, Logons{Last: third}, sent{Last: thirdText}, Logons{Last: third}, 0},
		"never and malformed are no times": {attributes{"lastLogon": {"9223372036854775807"}, "lastLogonTimestamp": {"x"}}, Logons{Last: first}, sent{Last: firstText}, Logons{Last: first}, 0},
		"failed logon elsewhere": {
			attributes{"badPasswordTime": {"134398063938451234"}, "badPwdCount": {"1"}}, Logons{LastFailed: second},
			sent{LastFailed: secondText, Failed: number(1)}, Logons{LastFailed: second, Failed: 1}, 0,
		},
		"failed logon here": {
			attributes{"badPasswordTime": {"134398063938461234"}, "badPwdCount": nil}, Logons{LastFailed: first},
			sent{LastFailed: secondText}, Logons{LastFailed: second}, 0,
		},
		"count of the PDC emulator": {
			attributes{"badPwdCount": {"5"}}, Logons{Failed: 2, HasFailed: true},
			sent{Failed: number(2)}, Logons{Failed: 2, HasFailed: true}, 0,
		},
		"no failures at the PDC emulator": {
			attributes{"badPwdCount": {"5"}}, Logons{HasFailed: true},
			sent{Failed: number(0)}, Logons{HasFailed: true}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewMapper(User)
			none := attributes{"lastLogon": nil, "badPwdCount": nil, "badPasswordTime": nil}
			asset, err := m.Map(nil, entry(t, m, with(with(alice, none), c.entry)), now, c.known)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Asset struct {
					AssetDetail struct {
						UserAssetClass sent `json:"userAssetClass"`
					} `json:"assetDetail"`
				} `json:"asset"`
			}
			if err := json.Unmarshal(asset.JSON, &got); err != nil {
				t.Fatal(err)
			}
			user := got.Asset.AssetDetail.UserAssetClass
			if user.Last != c.sent.Last || user.LastFailed != c.sent.LastFailed || (user.Failed == nil) != (c.sent.Failed == nil) || user.Failed != nil && *user.Failed != *c.sent.Failed {
				t.Errorf("sent %+v, want %+v", user, c.sent)
			}
			if asset.Logons != c.logons || asset.ReplicatedLogon != c.replicated {
				t.Errorf("logons %+v, replicated %d; want %+v, %d", asset.Logons, asset.ReplicatedLogon, c.logons, c.replicated)
			}
		})
	}
}
