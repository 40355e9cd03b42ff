#!/bin/sh
# Checks the program against the Go vulnerability database.
# Usage: vuln.sh GOVULNCHECK-VERSION
set -u
cd "$(dirname "$0")/.."
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
go run "golang.org/x/vuln/cmd/govulncheck@$1" ./... >"$output" 2>&1
code=$?
cat "$output"
if [ "$code" -ne 0 ] && grep -q '^govulncheck: fetching vulnerabilities' "$output"; then
	echo "make vuln: vulnerability database unreachable: NOTHING WAS CHECKED" >&2
	exit 1
fi
exit "$code"
