package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/oracle"
)

// oracleEntry converts an object to the form that package oracle requires.
func oracleEntry(o domaincontroller.Object) oracle.Entry {
	e := oracle.Entry{}
	for name, values := range o.Attributes {
		e[strings.ToLower(name)] = values
	}
	return e
}

// expectedAssets returns the assets that the gateway must hold for a directory, by
// vendorAssetId.
func expectedAssets(d *domaincontroller.Server, now time.Time) map[string]oracle.FlatAsset {
	assets := map[string]oracle.FlatAsset{}
	for _, o := range d.Objects() {
		if e := oracleEntry(o); e.Kind() != oracle.Other && e.Readable() {
			asset := e.Asset(now)
			assets[asset.Text(oracle.VendorID)] = asset
		}
	}
	return assets
}

// differences returns one line for each field that differs between the gateway and the
// directory. An object that was deleted after its delivery must have the status DELETED.
func (e *environment) differences() (found []string) {
	want := expectedAssets(e.Directory.Server, time.Now())
	got := map[string]oracle.FlatAsset{}
	for _, identity := range slices.Concat(e.Gateway.Users(), e.Gateway.Groups()) {
		asset, err := oracle.Flatten(identity.Asset)
		if err != nil {
			found = append(found, fmt.Sprintf("%s: %v", identity.VendorAssetID, err))
		}
		if other := got[identity.VendorAssetID]; other != nil {
			found = append(found, fmt.Sprintf("%s has two assets: %s and %s", identity.VendorAssetID, other.Text(oracle.ExternalID), identity.ExternalAssetID))
		}
		got[identity.VendorAssetID] = asset
	}
	for guid, wantAsset := range want {
		gotAsset, ok := got[guid]
		if !ok {
			found = append(found, fmt.Sprintf("%s %s: missing at the gateway", guid, wantAsset[oracle.Name]))
			continue
		}
		paths := maps.Clone(wantAsset)
		maps.Copy(paths, gotAsset)
		for path := range paths {
			if gotAsset[path] != wantAsset[path] && !(e.posture && strings.Contains(path, "AssetClass.posture.")) {
				found = append(found, fmt.Sprintf("%s %s: gateway %q, directory %q", guid, path, gotAsset[path], wantAsset[path]))
			}
		}
	}
	for guid, asset := range got {
		if e.posture && asset.Text(oracle.UserClass+"accountType") == "SERVICE" {
			continue // only security posture reads service accounts
		}
		if want[guid] == nil && asset.Text(oracle.UserClass+"status") != "DELETED" && asset.Text(oracle.GroupClass+"status") != "DELETED" {
			found = append(found, guid+notReportedDeleted)
		}
	}
	return found
}

// notReportedDeleted ends the line of an object that is not in the directory and not
// reported as deleted.
const notReportedDeleted = ": not in the directory, not reported as deleted"

// mustMatchDirectory ends the test unless the gateway holds the content of the directory.
// step names what happened before, for the failure messages.
func (e *environment) mustMatchDirectory(t *testing.T, step string) {
	t.Helper()
	found := e.differences()
	for _, difference := range found[:min(len(found), 10)] {
		t.Errorf("%s: %s", step, difference)
	}
	if len(found) > 0 {
		t.Fatalf("%s: %d differences", step, len(found))
	}
}
