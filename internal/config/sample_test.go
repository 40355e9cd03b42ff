package config_test

import (
	"testing"

	"adconnector/internal/config"
	"adconnector/internal/schedule"
)

func parseCron(expr string) error {
	_, err := schedule.Parse(expr)
	return err
}

// The documented sample and the documented table of keys, with invented values
// in place of the placeholders.
func TestDocumentedFiles(t *testing.T) {
	c, err := config.Load(config.Source{EnvFiles: []string{"../../testdata/documented-sample.env"}, ParseCron: parseCron})
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Gateway.Login; l.Type != "BASIC" || l.Username != "quays_rb" || l.Password.Reveal() != "Invented@890" {
		t.Errorf("sample: login %+v", l)
	}
	if p := c.Gateway.Proxy; p == nil || *p != (config.Proxy{Scheme: "http", Host: "10.0.0.221", Port: 8080}) {
		t.Errorf("sample: proxy %+v", p)
	}
	if c.Service.Cron != "0 0/10 * * * *" || c.Upload.Workers != 25 {
		t.Errorf("sample: %+v %+v", c.Service, c.Upload)
	}

	c, err = config.Load(config.Source{EnvFiles: []string{"../../testdata/documented-table.env"}, ParseCron: parseCron})
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Gateway.Login; l.Type != "OAUTH" || l.ClientSecret.Reveal() != "InventedClientSecretOfThisTest00" || l.TokenURL.Host != "login.example.com" || l.Level != "USER" {
		t.Errorf("table: login %+v", l)
	}
	if c.Service.Cron != "*/10 * * * *" || c.Gateway.Proxy.Port != 3128 || c.Upload.Workers != 10 {
		t.Errorf("table: %+v %+v %+v", c.Service, c.Gateway.Proxy, c.Upload)
	}
}
