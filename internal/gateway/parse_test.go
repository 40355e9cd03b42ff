package gateway

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// rejectionCases are values of assetsError with and without a supported structure.
var rejectionCases = []struct {
	name, raw    string
	byID         map[string]string
	unattributed bool
}{
	{"absent", ``, nil, false},
	{"null", `null`, nil, false},
	{"empty object", `{}`, nil, false},
	{"empty list", `[]`, nil, false},
	{"empty text", `""`, nil, false},
	{"keyed, string", `{"S-1-5-32-544":"bad\n name","1a2b":"worse"}`, map[string]string{"S-1-5-32-544": "bad name", "1a2b": "worse"}, false},
	{"keyed, empty string", `{"a":""}`, map[string]string{"a": noReason}, false},
	{"keyed, blank message", `{"a":{"message":" "}}`, map[string]string{"a": noReason}, false},
	{"keyed, null", `{"a":null}`, map[string]string{"a": noReason}, false},
	{"keyed, object", `{"a":{"code":7,"message":"bad"}}`, map[string]string{"a": "bad"}, false},
	{"keyed, object with other fields", `{"a":{"errorMessage":"b1"},"b":{"error":"b2"},"c":{"reason":"b3"},"d":{"description":"b4"},"e":{"code":7}}`,
		map[string]string{"a": "b1", "b": "b2", "c": "b3", "d": "b4", "e": `{"code":7}`}, false},
	{"keyed, list of strings", `{"a":["bad","worse"]}`, map[string]string{"a": "bad"}, false},
	{"keyed, list of objects", `{"a":[{"field":"name","message":"bad"}]}`, map[string]string{"a": "bad"}, false},
	{"keyed, empty list", `{"a":[]}`, map[string]string{"a": "[]"}, false},
	{"keyed, number", `{"a":17}`, map[string]string{"a": "17"}, false},
	{"lists", `{"failed":[{"externalAssetId":"a","message":"m"}],"errors":[{"vendorAssetId":"b","reason":"n"}],"Rejected":[{"sourceNativeKey":"c"},{"id":"d","error":"o"}]}`,
		map[string]string{"a": "m", "b": "n", "c": `{"sourceNativeKey":"c"}`, "d": "o"}, false},
	{"empty lists", `{"failed":[],"errors":null,"rejected":{}}`, nil, false},
	{"list with an item without ID", `{"failed":[{"externalAssetId":"a","message":"m"},{"message":"x"}]}`, map[string]string{"a": "m"}, true},
	{"list of strings", `{"errors":["bad"]}`, nil, true},
	{"list of numbers as IDs", `{"errors":[{"id":5}]}`, nil, true},
	{"string instead of a list", `{"errors":"bad"}`, nil, true},
	{"object instead of a list", `{"errors":{"x":"bad"}}`, nil, true},
	{"number instead of a list", `{"failed":2}`, nil, true},
	{"bare list", `[{"externalAssetId":"a","message":"m"}]`, map[string]string{"a": "m"}, false},
	{"bare list of strings", `["bad"]`, nil, true},
	{"keyed, nested lists", `{"a":[[["bad"],"worse"]],"b":[[]],"c":[null],"d":[true],"e":[{"x":[1]}]}`,
		map[string]string{"a": "bad", "b": "[]", "c": noReason, "d": "true", "e": `{"x":[1]}`}, false},
	{"message of a wrong type", `{"a":{"message":{"x":"y"},"reason":"bad"},"b":{"message":null,"code":1}}`, map[string]string{"a": "bad", "b": `{"code":1,"message":null}`}, false},
	{"list with a list", `[["a"],[{"id":"a"}],{"id":"b","id":"c","message":"m"}]`, map[string]string{"c": "m"}, true},
	{"large number", `{"a":1e400}`, map[string]string{"a": "1e400"}, false},
	{"spaces", ` { "a" : { "code" : 7 } } `, map[string]string{"a": `{"code":7}`}, false},
	{"text", `"bad"`, nil, true},
	{"number", `1`, nil, true},
	{"broken", `{"a"`, nil, true},
}

func TestParseRejections(t *testing.T) {
	t.Parallel()
	for _, test := range rejectionCases {
		t.Run(test.name, func(t *testing.T) {
			byID, unattributed := parseRejections(json.RawMessage(test.raw), 10)
			if !maps.Equal(byID, test.byID) || unattributed != test.unattributed {
				t.Errorf("got %v %v, want %v %v", byID, unattributed, test.byID, test.unattributed)
			}
		})
	}
}

// IDs beyond the number of objects in the batch are not added. They leave rejections without an
// object. Several items of one object count once.
func TestParseRejectionsLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, raw    string
		byID         map[string]string
		unattributed bool
	}{
		{"as many", `{"a":"1","failed":[{"id":"b","message":"2"}]}`, map[string]string{"a": "1", "b": "2"}, false},
		{"too many keys", `{"a":"1","b":"2","c":"3"}`, map[string]string{"a": "1", "b": "2"}, true},
		{"too many in lists", `{"failed":[{"id":"a","message":"1"}],"errors":[{"id":"b","message":"2"},{"id":"c"}]}`, map[string]string{"a": "1", "b": "2"}, true},
		{"too many in a list", `[{"id":"a","message":"1"},{},{}]`, map[string]string{"a": "1"}, true},
		{"same key twice", `{"a":"1","b":"2","a":"3"}`, map[string]string{"a": "1", "b": "2"}, false},
		{"three items of one object", `{"failed":[{"id":"a","message":"1"},{"id":"a","message":"2"},{"id":"a","message":"3"}]}`, map[string]string{"a": "1"}, false},
		{"three items of one object in several lists", `{"a":"1","failed":[{"id":"a","message":"2"}],"errors":[{"id":"a"},{"id":"b","message":"4"}]}`, map[string]string{"a": "1", "b": "4"}, false},
		{"item without an ID after three of one object", `[{"id":"a","message":"1"},{"id":"a"},{"id":"a"},{}]`, map[string]string{"a": "1"}, true},
	} {
		byID, unattributed := parseRejections(json.RawMessage(test.raw), 2)
		if !maps.Equal(byID, test.byID) || unattributed != test.unattributed {
			t.Errorf("%s: got %v %v, want %v %v", test.name, byID, unattributed, test.byID, test.unattributed)
		}
	}
}

func FuzzParseRejections(f *testing.F) {
	for _, test := range rejectionCases {
		f.Add([]byte(test.raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		byID, unattributed := parseRejections(raw, math.MaxInt)
		// Any content must lead to a rejection or to sending one by one.
		var document any
		if err := json.Unmarshal(raw, &document); err == nil {
			switch document := document.(type) {
			case []any:
				if len(document) > 0 && len(byID) == 0 && !unattributed {
					t.Error("list ignored")
				}
			case map[string]any:
				for key := range document {
					if _, found := byID[key]; !found && !isRejectionList(key) {
						t.Errorf("%q ignored", key)
					}
				}
			}
		}
		for id, reason := range byID {
			if reason == "" || !utf8.ValidString(reason) || utf8.RuneCountInString(reason) > maxMessageLength+1 || strings.ContainsAny(reason, "\r\n") {
				t.Errorf("%q: reason %q", id, reason)
			}
		}
	})
}

var tokenCases = []struct{ name, body, want string }{
	{"bare", "aaa.bbb.ccc", "aaa.bbb.ccc"},
	{"bare with a line break", "\taaa.bbb.c-c_\r\n", "aaa.bbb.c-c_"},
	{"access_token", `{"access_token":"a.b.c","token":"d.e.f"}`, "a.b.c"},
	{"token", ` {"token":"d.e.f","expires_in":14400}`, "d.e.f"},
	{"JSON string", `"a.b.c"`, "a.b.c"},
	{"access_token null", `{"access_token":null,"token":"d.e.f"}`, "d.e.f"},
	{"other fields of any type", `{"access_token":"a.b.c","token":{},"expires_in":[]}`, "a.b.c"},
	{"form", "access_token=a.b%2Bc&token_type=bearer", "a.b+c"},
	{"form, not first", "token_type=bearer&access_token=a.b.c", "a.b.c"},
	{"empty", "", ""},
	{"empty JSON", "{}", ""},
	{"other JSON", `{"message":"ok"}`, ""},
	{"token of a wrong type", `{"token":1}`, ""},
	{"broken JSON", `{"token":"a.b.c"`, ""},
	{"broken string", `"a.b.c`, ""},
	{"list", `["a.b.c"]`, ""},
	{"null", "null\n", ""},
	{"too long", strings.Repeat("x", 1<<20), ""},
	{"HTML", "<html>", ""},
	{"sentence", "Please log in", ""},
	{"two lines", "a.b.c\r\nX-Evil: 1", ""},
	{"not ASCII", "a.b.ç", ""},
	{"control character", "a.b\x00.c", ""},
}

func TestParseToken(t *testing.T) {
	t.Parallel()
	for _, test := range tokenCases {
		t.Run(test.name, func(t *testing.T) {
			if got := parseToken([]byte(test.body), time.Now()); got.text != test.want {
				t.Errorf("got %q, want %q", got.text, test.want)
			}
		})
	}
}

func FuzzParseToken(f *testing.F) {
	for _, test := range tokenCases {
		f.Add([]byte(test.body))
	}
	now := time.Now()
	f.Add([]byte(jwt(`{"exp":4102444800}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		issued := parseToken(body, now)
		token := issued.text
		if token != "" && !issued.expiry.After(now) {
			t.Errorf("%q issued as expired", token)
		}
		if !tokenExpiry(token, now).After(now) {
			t.Errorf("%q already expired", token)
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("<>\"{}[]", r) }) {
			t.Errorf("token %q", token)
		}
	})
}

func jwt(payload string) string {
	return "h." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".s"
}

func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	defaultExpiry := now.Add(4 * time.Hour)
	for _, test := range []struct {
		name, token string
		want        time.Time
	}{
		{"exp", jwt(`{"exp":1800000100,"sub":"x"}`), now.Add(100 * time.Second)},
		{"fraction", jwt(`{"exp":1800000100.9}`), now.Add(100 * time.Second)},
		{"padded", "h.eyJleHAiOjE4MDAwMDAxMDB9==.s", now.Add(100 * time.Second)},
		{"past", jwt(`{"exp":1700000000}`), defaultExpiry},
		{"now", jwt(`{"exp":1800000000}`), defaultExpiry},
		{"none", jwt(`{"sub":"x"}`), defaultExpiry},
		{"text", jwt(`{"exp":"1800000100"}`), defaultExpiry},
		{"negative", jwt(`{"exp":-1}`), defaultExpiry},
		{"too large", jwt(`{"exp":1e300}`), defaultExpiry},
		{"not JSON", jwt(`exp`), defaultExpiry},
		{"not base64", "h.!.s", defaultExpiry},
		{"opaque", "0123456789", defaultExpiry},
	} {
		if got := tokenExpiry(test.token, now); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestWaitDuration(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, toWait, retryAfter, date string
		want                           time.Duration
	}{
		{"none", "", "", "", time.Minute},
		{"X-RateLimit-ToWait-Sec", "3600", "7", "", time.Hour},
		{"seconds", "", " 7 ", "", 7 * time.Second},
		{"seconds with a fraction", "", "1.5", "", 1500 * time.Millisecond},
		{"fraction of a second", "0.25", "7", "", 250 * time.Millisecond},
		{"date", "", "Sun, 22 Nov 2026 10:05:00 GMT", "", 5 * time.Minute},
		{"date, local clock ahead", "", "Sun, 22 Nov 2026 10:05:00 GMT", "Sun, 22 Nov 2026 09:55:00 GMT", 10 * time.Minute},
		{"date, local clock behind", "", "Sat, 22 Nov 2036 10:05:00 GMT", "Sat, 22 Nov 2036 10:04:50 GMT", 10 * time.Second},
		{"date, invalid Date", "", "Sun, 22 Nov 2026 10:05:00 GMT", "today", 5 * time.Minute},
		{"date in the past", "", "Sun, 22 Nov 2026 09:00:00 GMT", "Sun, 22 Nov 2026 09:00:01 GMT", 0},
		{"date in the past by the local clock only", "", "Sun, 22 Nov 2026 09:00:00 GMT", "", time.Minute},
		{"date in the far future", "", "Sun, 22 Nov 9999 10:05:00 GMT", "", maxWait},
		{"0", "0", "", "", 0},
		{"0, and seconds", "0", "7", "", 7 * time.Second},
		{"invalid, and seconds", "soon", "7", "", 7 * time.Second},
		{"invalid", "-1", "1e9", "", time.Minute},
		{"with a unit", "5m", "2h", "", time.Minute},
		{"two points", "1.2.3", ".", "", time.Minute},
		{"above the maximum", "2147483647", "", "", maxWait},
		{"above the range of a duration", "9999999999", "", "", maxWait},
		{"above the integer range", "", "99999999999999999999", "", maxWait},
	} {
		header := http.Header{"X-Ratelimit-Towait-Sec": {test.toWait}, "Retry-After": {test.retryAfter}, "Date": {test.date}}
		if got := waitDuration(header, now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func FuzzWaitDuration(f *testing.F) {
	for _, value := range []string{"", "0", "60", "-1", "1e9", "1.5", "Sun, 22 Nov 2026 10:05:00 GMT", "Sunday, 22-Nov-26 10:05:00 GMT"} {
		f.Add(value, value, int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, toWait, retryAfter string, now int64) {
		header := http.Header{"X-Ratelimit-Towait-Sec": {toWait}, "Retry-After": {retryAfter}}
		if got := waitDuration(header, time.Unix(now, 0)); got < 0 || got > maxWait {
			t.Errorf("%s", got)
		}
	})
}
