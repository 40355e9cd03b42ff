#!/bin/sh
# Prints the licenses and notices of all modules in the program. Most of the licenses
# require this for redistribution.
set -eu
cd "$(dirname "$0")/.."
echo "adconnector contains the Go standard library and the modules below."
printf '\n==== Go\n\n'
cat "$(go env GOROOT)/LICENSE"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/adconnector | sort -u |
	while read -r module version dir; do
		printf '\n==== %s %s\n\n' "$module" "$version"
		cat "$dir"/[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*
		for notice in "$dir"/NOTICE*; do
			[ ! -f "$notice" ] || cat "$notice"
		done
	done
