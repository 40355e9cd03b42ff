package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestRedaction(t *testing.T) {
	t.Parallel()
	type holder struct {
		Name  string
		Token Text
		Ptr   *Text
	}
	variable := NewVariable("first")
	token := variable.Text()
	variable.Set("hunter2")
	h := holder{"x", token, &token}
	nested := struct{ Inner *holder }{&h}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("m", "token", token)
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{logged.String(), string(encoded), fmt.Sprintf("%v %+v %#v %s", variable, variable, *variable, variable)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10s"} {
		if s := fmt.Sprintf(verb, token); s != "[redacted]" {
			t.Errorf("%s: %q", verb, s)
		}
		printed = append(printed, fmt.Sprintf(verb, variable), fmt.Sprintf(verb, struct{ token Text }{token}), fmt.Sprintf(verb, &token), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, nested))
	}
	for _, s := range printed {
		if strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("secret found in %q", s)
		}
	}
	if token.Reveal() != "hunter2" || token.IsZero() || !New("").IsZero() {
		t.Error("unexpected result of Reveal or IsZero")
	}
}

func TestUnmarshalJSON(t *testing.T) {
	t.Parallel()
	var token Text
	if err := json.Unmarshal([]byte(`"p\"w"`), &token); err != nil || token.Reveal() != `p"w` {
		t.Errorf("got %q, %v", token.Reveal(), err)
	}
	if err := json.Unmarshal([]byte(`{"hunter2":1}`), &token); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

func TestVariable(t *testing.T) {
	t.Parallel()
	variable := NewVariable("first")
	text, constant := variable.Text(), New("first")
	variable.Set("second")
	if text.Reveal() != "second" || variable.Text().Reveal() != "second" || constant.Reveal() != "first" {
		t.Errorf("%q, %q", text.Reveal(), constant.Reveal())
	}
	variable.Set("")
	if !text.IsZero() {
		t.Error("not empty")
	}
}
