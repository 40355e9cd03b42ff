// Command sbom prints a CycloneDX bill of materials of a Go binary. It reads the modules
// from the build information in the binary. The same binary produces the same output,
// because the document has no serial number and no timestamp.
//
// Usage: sbom BINARY VERSION LICENSE
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := write(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write writes the bill of materials to w. The arguments are those of the command line.
func write(w io.Writer, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: sbom BINARY VERSION LICENSE")
	}
	path, version, license := args[0], args[1], args[2]
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	program := component(cyclonedx.ComponentTypeApplication, info.Main.Path, version)
	program.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: license}}}
	program.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	program.Properties = &[]cyclonedx.Property{{Name: "file", Value: filepath.Base(path)}}

	components := []cyclonedx.Component{component(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, module := range info.Deps {
		library, err := libraryComponent(module)
		if err != nil {
			return err
		}
		components = append(components, library)
	}
	refs := make([]string, len(components))
	for i, c := range components {
		refs[i] = c.BOMRef
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &program}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	// Version 1.6 is not the latest version, but few programs can read later ones.
	return cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}

// component returns a component that is identified by its package URL.
func component(kind cyclonedx.ComponentType, name, version string) cyclonedx.Component {
	purl := "pkg:golang/" + name + "@" + version
	return cyclonedx.Component{BOMRef: purl, Type: kind, Name: name, Version: version, PackageURL: purl}
}

// libraryComponent returns the component of a module. Its hash is the module's checksum in
// go.sum, a SHA-256 of a list of files (golang.org/x/mod/sumdb/dirhash).
func libraryComponent(module *debug.Module) (cyclonedx.Component, error) {
	if module.Replace != nil {
		module = module.Replace
	}
	library := component(cyclonedx.ComponentTypeLibrary, module.Path, module.Version)
	text, found := strings.CutPrefix(module.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(text)
	if !found || err != nil {
		return library, fmt.Errorf("parse checksum of %s %s: invalid value %q", module.Path, module.Version, module.Sum)
	}
	library.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
	return library, nil
}
