package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

func TestSendResponses(t *testing.T) {
	t.Parallel()
	const (
		sid, guid = "S-1-5-32-544", "1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d"
		proxy     = "proxy"
	)
	for _, test := range []struct {
		name    string
		status  int
		body    string
		want    gateway.BatchResponse
		class   fault.Class // "": want
		cause   error
		message string   // of the gateway
		names   []string // in the remedy
	}{
		{"200", 200, published, gateway.BatchResponse{}, "", nil, "", nil},
		{"201", 201, published, gateway.BatchResponse{}, "", nil, "", nil},
		{"202", 202, published, gateway.BatchResponse{}, "", nil, "", nil},
		{"no assetsError", 200, `{"responseCode":"SUCCESSFULLY_PUBLISHED"}`, gateway.BatchResponse{}, "", nil, "", nil},
		{"assetsError null", 200, `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":null}`, gateway.BatchResponse{}, "", nil, "", nil},
		{"207, none rejected", 207, published, gateway.BatchResponse{}, "", nil, "", nil},
		{"207", 207, `{"message":"some","responseCode":"PARTIAL","assetsError":{"` + sid + `":"bad  name"}}`,
			gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "PARTIAL some", Rejected: map[string]string{sid: "bad name"}}, "", nil, "", nil},
		{"200, some rejected", 200, `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{"failed":[{"vendorAssetId":"` + guid + `","message":"bad"}]}}`,
			gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "SUCCESSFULLY_PUBLISHED", Rejected: map[string]string{guid: "bad"}}, "", nil, "", nil},
		{"200, rejection without ID", 200, `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":["bad"]}`,
			gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "SUCCESSFULLY_PUBLISHED", Rejected: map[string]string{}, Unattributed: true}, "", nil, "", nil},
		{"207, no code and no rejection", 207, `{"message":"some"}`, gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "some", Unattributed: true}, "", nil, "", nil},
		{"FAILED", 200, `{"message":"no","responseCode":"FAILED","assetsError":{}}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "FAILED no"}, "", nil, "", nil},
		{"FAILED with rejections", 202, `{"responseCode":"FAILED","assetsError":{"` + sid + `":"bad"}}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "FAILED", Rejected: map[string]string{sid: "bad"}}, "", nil, "", nil},
		{"400", 400, `{"message":"bad asset"}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: bad asset"}, "", nil, "", nil},
		{"400 with another field", 400, `{"errorMessage":"bad asset"}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: `400: {"errorMessage":"bad asset"}`}, "", nil, "", nil},
		{"400 with rejections", 400, `{"message":"invalid","assetsError":{"` + sid + `":"bad name"}}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: invalid", Rejected: map[string]string{sid: "bad name"}}, "", nil, "", nil},
		{"400 without a reason", 400, `{"message":"invalid","assetsError":{"` + sid + `":null}}`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: invalid", Rejected: map[string]string{}}, "", nil, "", nil},
		{"422", 422, `bad`, gateway.BatchResponse{Outcome: gateway.Rejected, Message: "422: bad"}, "", nil, "", nil},
		{"413", 413, ``, gateway.BatchResponse{Outcome: gateway.TooLarge, Message: "413"}, "", nil, "", nil},

		{"customer from token", 400, `{"message":"Error validating customer from token"}`, gateway.BatchResponse{}, fault.Refused, gateway.ErrWrongAPI, "Error validating customer from token", []string{"authentication.type"}},
		{"401", 401, ``, gateway.BatchResponse{}, fault.Refused, gateway.ErrNewTokenRefused, "", []string{"connector.api.url"}},
		{"403", 403, `{"message":"module missing"}`, gateway.BatchResponse{}, fault.Refused, gateway.ErrNotAllowed, "module missing", []string{"API access", "module"}},
		{"404", 404, `{"message":"unknown profileUuid"}`, gateway.BatchResponse{}, fault.Refused, gateway.ErrNotFound, "unknown profileUuid", []string{"qualys.customerUuid", "qualys.connectionUuid", "qualys.profileUuid", "gateway.path.assets"}},
		{"204", 204, ``, gateway.BatchResponse{}, fault.Refused, gateway.ErrUnexpected, "", []string{"connector.api.url", "gateway.path"}},
		{"408", 408, ``, gateway.BatchResponse{}, fault.Transient, gateway.ErrGatewayFailed, "", []string{"platform"}},
		{"421", 421, ``, gateway.BatchResponse{}, fault.Transient, gateway.ErrGatewayFailed, "", []string{"platform"}},
		{"425", 425, ``, gateway.BatchResponse{}, fault.Transient, gateway.ErrGatewayFailed, "", []string{"platform"}},
		{"500", 500, `oops`, gateway.BatchResponse{}, fault.Transient, gateway.ErrGatewayFailed, "oops", []string{"platform"}},
		{"503", 503, ``, gateway.BatchResponse{}, fault.Transient, gateway.ErrGatewayFailed, "", []string{"platform"}},
		{"captive portal", 200, `<html>Accept the terms</html>`, gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "not complete JSON", []string{proxy}},
		{"captive portal in JSON", 200, `{"login":"please"}`, gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "no responseCode", []string{proxy}},
		{"message without code", 200, `{"message":"1 assets published"}`, gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "no responseCode", []string{proxy}},
		{"empty", 200, ``, gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "empty response", []string{proxy}},
		{"null", 200, `null`, gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "no responseCode", []string{proxy}},
		{"truncated JSON", 202, published[:40], gateway.BatchResponse{}, fault.Transient, gateway.ErrNoProof, "not complete JSON", []string{proxy}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests [][]byte
			server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				requests = append(requests, append([]byte(r.Header.Get("Idempotency-Key")), body...))
				respondWith(test.status, test.body)(w, r)
			}))
			o := options(t, server.URL)
			got, err := send(t.Context(), gateway.New(o))
			attempts := 1
			switch {
			case test.class != "":
				checkError(t, err, sendError(o, test.class), test.cause, test.names...)
				checkResponseError(t, err, test.status, test.message)
			case err != nil:
				t.Fatal(err)
			case got.Outcome != test.want.Outcome || got.Message != test.want.Message || got.Unattributed != test.want.Unattributed || !maps.Equal(got.Rejected, test.want.Rejected):
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if test.class == fault.Transient {
				attempts = 6
			} else if test.status == 401 {
				attempts = 2
			}
			if len(requests) != attempts {
				t.Errorf("%d attempts, want %d", len(requests), attempts)
			}
			for _, request := range requests {
				if !bytes.Equal(request, requests[0]) {
					t.Errorf("attempts differ:\n%s\n%s", requests[0], request)
				}
			}
		})
	}
}

// After any failure with an unknown outcome, the same bytes are sent again until accepted.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		fail func(w http.ResponseWriter)
	}{
		{"reset before the response", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
		{"reset within the body", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, published[:30])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"reset after the JSON document", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(published)+1))
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, published)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"reset within the header", func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 202 Acc")
				_ = conn.Close()
			}
		}},
		{"truncated JSON", func(w http.ResponseWriter) { _, _ = io.WriteString(w, published[:50]) }},
		{"503", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }},
	} {
		for _, failures := range []int{2, 1000} {
			t.Run(fmt.Sprintf("%s, %d times", test.name, failures), func(t *testing.T) {
				var mu sync.Mutex
				var bodies [][]byte
				o := sandboxOptions()
				o.Intercept = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
					if r.URL.Path != assetsPath {
						return false
					}
					mu.Lock()
					bodies = append(bodies, append([]byte(r.Header.Get("Idempotency-Key")), body...))
					attempts := len(bodies)
					mu.Unlock()
					if attempts > failures {
						return false
					}
					test.fail(w)
					return true
				}
				g, server := startSandbox(t, o)
				clientOptions := options(t, server.URL)
				client := gateway.New(clientOptions)
				batch, err := send(t.Context(), client)
				retries := client.Counts().Retries
				if failures == 2 {
					if err != nil || batch.Outcome != gateway.Accepted || retries < 1 || len(g.Groups()) != 1 {
						t.Errorf("%+v, %v after %d retries", batch, err, retries)
					}
				} else {
					checkError(t, err, sendError(clientOptions, fault.Transient), nil, faulttest.AnyRemedy)
					if retries != 5 {
						t.Errorf("%d retries", retries)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for _, body := range bodies {
					if !bytes.Equal(body, bodies[0]) {
						t.Errorf("attempts differ:\n%s\n%s", bodies[0], body)
					}
				}
			})
		}
	}
}

// A server that refuses a request may close the connection before the end of the body.
func TestIncompleteRefusal(t *testing.T) {
	t.Parallel()
	for status, class := range map[int]fault.Class{403: fault.Refused, 407: fault.Refused, 413: ""} {
		requests := 0
		server := serve(t, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
			requests++
			w.Header().Set("Content-Length", "100")
			respondWith(status, "no")(w, nil)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}))
		o := options(t, server.URL)
		batch, err := send(t.Context(), gateway.New(o))
		if class != "" {
			checkError(t, err, sendError(o, class), nil, faulttest.AnyRemedy)
			if response, ok := errors.AsType[*gateway.ResponseError](err); !ok || response.Status != status {
				t.Errorf("response %+v, want %d", response, status)
			}
		} else if err != nil || batch.Outcome != gateway.TooLarge {
			t.Errorf("%d: %+v, %v", status, batch, err)
		}
		if requests != 1 {
			t.Errorf("%d: %d requests", status, requests)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	target := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		t.Errorf("redirect followed: %s %s %v: %s", r.Method, r.URL, r.Header, body)
	}))
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target.URL+"/path?token="+token, status)
		}))
		o := options(t, server.URL)
		client := gateway.New(o)
		_, err := send(t.Context(), client)
		checkError(t, err, sendError(o, fault.Refused), gateway.ErrRedirected, "connector.api.url")
		checkResponseError(t, err, status, target.URL+"/path")
		_, err = client.Connection(t.Context())
		checkError(t, err, connectionError(fault.Refused), gateway.ErrRedirected, "connector.api.url")
		checkResponseError(t, err, status, target.URL+"/path")
	}
}

// The mapped assets of users and groups conform to the contract. The tests of package identity
// ensure that the golden files contain every target field.
func TestGoldensConformToContract(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../identity/testdata/*.json")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	_, server := startSandbox(t, sandboxOptions())
	client := gateway.New(options(t, server.URL))
	for _, file := range files {
		asset, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := client.Send(t.Context(), uuid.NewString(), 1, bytes.TrimSpace(asset))
		if err != nil || batch.Outcome != gateway.Accepted {
			t.Errorf("%s: %+v, %v", file, batch, err)
		}
	}
}

func TestMappedAssetsConformToContract(t *testing.T) {
	t.Parallel()
	const sid = "\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\xe0\xdd\x36\x6e\x73\xb2\xf4\x10\x68\xad\x5c\x57\x4f\x04\x00"
	user := map[string]string{
		"name": "Alice Kovács", "mail": "alice@corp.example.com", "givenName": "Alice", "sn": "Kovács", "displayName": "\"A\"\\\x01\u2028 <&>",
		"mobile": "+1 555 0100", "title": "Engineer", "whenCreated": "20261122072306.0Z", "lastLogon": "134398063938451234",
		"pwdLastSet": "134398063938451234", "accountExpires": "134500000000000000", "badPwdCount": "0", "badPasswordTime": "134398063930000000",
		"l": "Pune", "co": "India", "c": "IN", "st": "MH", "streetAddress": "1 Main St\r\nFloor 2", "userAccountControl": "512", "msDS-User-Account-Control-Computed": "0",
	}
	group := func(groupType string) map[string]string {
		return map[string]string{"name": "Staff", "displayName": "All Staff", "description": "All employees", "groupType": groupType}
	}
	var batch []byte
	objects := 0
	add := func(kind identity.Kind, attributes map[string]string) {
		m := identity.NewMapper(kind)
		entry := &ad.Entry{DN: []byte("CN=x,DC=corp"), Values: make([][][]byte, len(m.Attributes))}
		objects++
		attributes = maps.Clone(attributes)
		attributes["objectSid"] = sid + string(rune(objects))
		attributes["objectGUID"] = "0123456789abcde" + string(rune(objects))
		for name, value := range attributes {
			slot := slices.Index(m.Attributes, name)
			if slot < 0 {
				t.Fatalf("mapper does not read %s", name)
			}
			entry.Values[slot] = [][]byte{[]byte(value)}
		}
		asset, err := m.Map(nil, entry, time.Now(), identity.Logons{})
		if err != nil || asset.Unparsed > 0 {
			t.Fatal(asset.Unparsed, err)
		}
		if len(batch) > 0 {
			batch = append(batch, ',')
		}
		batch = append(batch, asset.JSON...)
	}
	add(identity.User, user)
	add(identity.User, map[string]string{})
	add(identity.User, map[string]string{"l": "Pune"})
	for _, groupType := range []string{"-2147483646", "-2147483644", "-2147483640", "-2147483643", "2", "4", "8", "-2147483648"} {
		add(identity.Group, group(groupType))
	}
	add(identity.Group, map[string]string{})

	g, server := startSandbox(t, sandboxOptions())
	response, err := gateway.New(options(t, server.URL)).Send(t.Context(), uuid.NewString(), objects, batch)
	if err != nil || response.Outcome != gateway.Accepted {
		t.Errorf("%+v, %v", response, err)
	}
	if users, groups := len(g.Users()), len(g.Groups()); users != 3 || groups != 9 {
		t.Errorf("%d users and %d groups received", users, groups)
	}
}
