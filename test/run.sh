#!/bin/sh
# Runs go test with the given arguments, with the race detector where it can be built. The
# race detector needs cgo, and so a C compiler with the headers of its library.
set -eu
cc=$(go env CC)
dir=$(mktemp -d)
printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' > "$dir/main.c"
race=
if [ "$(go env CGO_ENABLED)" = 1 ] && $cc -pthread -o "$dir/main" "$dir/main.c" 2> "$dir/errors"; then
	race=-race
fi
rm -rf "$dir"
if [ -z "$race" ]; then
	echo "race detector off: cgo is off, or there is no working C compiler (CC=$cc)"
	export CGO_ENABLED=0
fi
exec go test $race "$@"
