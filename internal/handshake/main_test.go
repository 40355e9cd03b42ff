package handshake

import (
	"testing"

	"adconnector/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
