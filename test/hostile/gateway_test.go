package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"adconnector/test/testenv"
)

// form writes one answer to a call.
type form func(x *testenv.Exchange)

// when selects the calls of the gateway that an attack answers.
type when func(x *testenv.Exchange) bool

// once selects the first two calls to a path: 1,000 objects are two concurrent batches.
func once(x *testenv.Exchange) bool { return x.Number <= 2 }

func always(*testenv.Exchange) bool { return true }

// respond writes a status and a body in pieces until it ends or the client closes.
func respond(status int, header map[string]string, pieces int, piece string, prefix string) form {
	return func(x *testenv.Exchange) {
		x.W.Header().Set("Content-Type", "application/json")
		for key, value := range header {
			x.W.Header().Set(key, value)
		}
		x.W.WriteHeader(status)
		if _, err := io.WriteString(x.W, prefix); err != nil {
			return
		}
		for range pieces {
			if _, err := io.WriteString(x.W, piece); err != nil {
				return
			}
		}
	}
}

// wire writes bytes to the connection, and closes it when the client does or write returns.
func wire(write func(conn net.Conn, answer *httptest.ResponseRecorder)) form {
	return func(x *testenv.Exchange) {
		answer := x.Deliver()
		conn, _, err := http.NewResponseController(x.W).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		write(conn, answer)
	}
}

// encode encodes an answer with a Content-Length that differs from its size.
func encode(answer *httptest.ResponseRecorder, difference int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d OK\r\nContent-Length: %d\r\n", answer.Code, answer.Body.Len()+difference)
	_ = answer.Header().Write(&b)
	b.WriteString("\r\n")
	b.Write(answer.Body.Bytes())
	return b.Bytes()
}

// bomb is 512 MiB of spaces, compressed.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	_, _ = w.Write([]byte(`{"message":"`))
	for range 512 {
		_, _ = w.Write(spaces)
	}
	_ = w.Close()
	return b.Bytes()
})

// forms are the ways of answering, by name.
func forms() map[string]form {
	const mega = 1 << 20
	text := strings.Repeat("x", mega)
	objects := strings.Repeat("{},", mega/3)
	return map[string]form{
		"body of 64 MB":            respond(200, nil, 64, text, `{"message":"`),
		"body without end":         respond(200, nil, 1<<40, text, `{"message":"`),
		"error body without end":   respond(500, nil, 1<<40, text, ""),
		"arrays in arrays":         respond(200, nil, 16, strings.Repeat("[", mega), `{"assetsError":`),
		"objects in objects":       respond(200, nil, 16, strings.Repeat(`{"a":`, mega/5), ""),
		"assetsError of objects":   respond(200, nil, 16, objects, `{"responseCode":"SUCCESS","assetsError":[`),
		"error of objects":         respond(400, nil, 16, objects, `{"error":[`),
		"assetsError of keys":      respond(200, nil, 16, strings.Repeat(`"a":"",`, mega/7), `{"assetsError":{`),
		"control characters":       respond(400, nil, 1, strings.Repeat("\u202e\x1b]0;x\x07", 1000), `{"message":"`),
		"redirect to a long place": respond(307, map[string]string{"Location": "http://" + strings.Repeat("y", 500_000)}, 0, "", ""),
		"compressed bomb": func(x *testenv.Exchange) {
			respond(200, map[string]string{"Content-Encoding": "gzip"}, 1, string(bomb()), "")(x)
		},
		"header without end": wire(func(conn net.Conn, _ *httptest.ResponseRecorder) {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Long: ")
			for err == nil {
				_, err = io.WriteString(conn, text)
			}
		}),
		"headers without end": wire(func(conn net.Conn, _ *httptest.ResponseRecorder) {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for n := 0; err == nil; n++ {
				_, err = fmt.Fprintf(conn, "X-%d: %s\r\n", n, text[:1000])
			}
		}),
		"1xx without end": wire(func(conn net.Conn, _ *httptest.ResponseRecorder) {
			flood := bytes.Repeat([]byte("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), 1000)
			for {
				if _, err := conn.Write(flood); err != nil {
					return
				}
			}
		}),
		"answer sent twice": wire(func(conn net.Conn, answer *httptest.ResponseRecorder) {
			_, _ = conn.Write(append(encode(answer, 0), encode(answer, 0)...))
			_, _ = io.Copy(io.Discard, conn)
		}),
		"too long length": wire(func(conn net.Conn, answer *httptest.ResponseRecorder) {
			_, _ = conn.Write(encode(answer, 1<<40))
		}),
		"too short length": wire(func(conn net.Conn, answer *httptest.ResponseRecorder) {
			_, _ = conn.Write(encode(answer, -min(answer.Body.Len(), 5)))
			_, _ = io.Copy(io.Discard, conn)
		}),
		"not HTTP": wire(func(conn net.Conn, _ *httptest.ResponseRecorder) {
			_, err := io.WriteString(conn, "220 mail ESMTP\r\n")
			for err == nil {
				_, err = io.WriteString(conn, text)
			}
		}),
	}
}

// at returns a front that answers the selected calls to a path in one form; path "": to all.
func at(path string, selected when, f form) func(x *testenv.Exchange) bool {
	return func(x *testenv.Exchange) bool {
		if path != "" && x.R.URL.Path != path || !selected(x) {
			return false
		}
		f(x)
		return true
	}
}

// gatewayAttacks returns the attacks of the gateway on the calls that carry assets, and those
// on the other calls in the forms that matter there.
func gatewayAttacks(selected when) []attack {
	all := forms()
	var attacks []attack
	for name, f := range all {
		attacks = append(attacks, attack{name: name, gateway: at(testenv.AssetsPath, selected, f)})
	}
	first := func(x *testenv.Exchange) bool { return x.Number == 1 }
	for path, names := range map[string][]string{
		testenv.ConnectionPath: {"answer sent twice", "body without end", "objects in objects"},
		testenv.LoginPath:      {"answer sent twice", "body without end", "headers without end"},
		testenv.StatePath:      {"answer sent twice", "error body without end"},
	} {
		for _, name := range names {
			attacks = append(attacks, attack{name: name + " at " + path[strings.LastIndex(path, "/"):], gateway: at(path, first, all[name])})
		}
	}
	return attacks
}

// slowAttacks returns the attacks that last until a timeout or a limit of the connector.
func slowAttacks() []attack {
	silent := func(x *testenv.Exchange) { <-x.R.Context().Done() }
	first := func(x *testenv.Exchange) bool { return x.Number == 1 }
	return append(endlessAttacks(), attack{name: "silent gateway", gateway: at(testenv.AssetsPath, first, silent)})
}

// randomAttack returns a combination of random answers.
func randomAttack(random *rand.Rand) attack {
	a := attack{name: "random " + strconv.FormatUint(random.Uint64(), 36), random: true, posture: random.IntN(2) == 0, bound: largeMemoryBound}
	if random.IntN(3) > 0 {
		a.directory = randomDirectory(random)
	}
	all := forms()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names) // so that a seed selects the same ones
	seed, rate := random.Uint64(), 1+random.IntN(4)
	last := 20 // the last call to a path that is attacked: each one may cost seconds of backoff
	if testing.Short() {
		last = 2
	}
	a.gateway = func(x *testenv.Exchange) bool {
		pick := rand.New(rand.NewPCG(seed, uint64(x.Number)))
		if x.Number > last || pick.IntN(rate) == 0 {
			return false
		}
		all[names[pick.IntN(len(names))]](x)
		return true
	}
	return a
}
