// Command sbom writes a CycloneDX bill of materials of a Go binary, from what the
// linker wrote into it: sbom BINARY VERSION LICENCE. The same binary gives the same
// bytes: there is no serial number and no time in it.
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

func write(to io.Writer, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: sbom BINARY VERSION LICENCE")
	}
	path, version, licence := args[0], args[1], args[2]
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
	program.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: licence}}}
	program.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	program.Properties = &[]cyclonedx.Property{{Name: "file", Value: filepath.Base(path)}}

	parts := []cyclonedx.Component{component(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, module := range info.Deps {
		part, err := library(module)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	needed := make([]string, len(parts))
	for i, part := range parts {
		needed[i] = part.BOMRef
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &program}
	bom.Components = &parts
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &needed}}
	// Not the latest, which few programs read yet.
	return cyclonedx.NewBOMEncoder(to, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}

func component(kind cyclonedx.ComponentType, name, version string) cyclonedx.Component {
	purl := "pkg:golang/" + name + "@" + version
	return cyclonedx.Component{BOMRef: purl, Type: kind, Name: name, Version: version, PackageURL: purl}
}

// library takes over the module's sum in go.sum, which is a SHA-256 too, though of a
// list of files (golang.org/x/mod/sumdb/dirhash).
func library(module *debug.Module) (cyclonedx.Component, error) {
	if module.Replace != nil {
		module = module.Replace
	}
	part := component(cyclonedx.ComponentTypeLibrary, module.Path, module.Version)
	text, is := strings.CutPrefix(module.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(text)
	if !is || err != nil {
		return part, fmt.Errorf("%s %s: sum %q is none", module.Path, module.Version, module.Sum)
	}
	part.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
	return part, nil
}
