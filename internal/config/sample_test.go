package config

import (
	"testing"

	"adconnector/internal/gateway"
)

// TestDocumentedFiles loads the documented sample and the documented table of keys, in which
// invented values replace the placeholders.
func TestDocumentedFiles(t *testing.T) {
	t.Parallel()
	c := requireLoad(t, nil, "../../testdata/documented-sample.env")
	if l := c.Gateway.Login; l.Username != "quays_rb" || l.Password.Reveal() != "Invented@890" || l.ClientID != "" {
		t.Errorf("sample: login %+v", l)
	}
	if p := c.Gateway.Proxy; p == nil || *p != (gateway.Proxy{Scheme: "http", Host: "10.0.0.221", Port: 8080}) {
		t.Errorf("sample: proxy %+v", p)
	}
	if c.Service.Schedule.Expression != "0 0/10 * * * *" || c.Run.Upload.Workers != 25 {
		t.Errorf("sample: %+v %+v", c.Service, c.Run.Upload)
	}

	c = requireLoad(t, nil, "../../testdata/documented-table.env")
	if l := c.Gateway.Login; l.Username != "" || l.ClientSecret.Reveal() != "InventedClientSecretOfThisTest00" || l.TokenURL.Host != "login.example.com" || l.Subscription {
		t.Errorf("table: login %+v", l)
	}
	if c.Service.Schedule.Expression != "*/10 * * * *" || c.Gateway.Proxy.Port != 3128 || c.Run.Upload.Workers != 10 {
		t.Errorf("table: %+v %+v %+v", c.Service, c.Gateway.Proxy, c.Run.Upload)
	}
}
