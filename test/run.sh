#!/bin/sh
# Runs go test with the given arguments, and with the race detector if it can be built. The
# race detector needs cgo, which needs a C compiler and the headers of the C library.
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
	echo "race detector off: cgo is disabled or the C compiler does not work (CC=$cc)"
	export CGO_ENABLED=0
fi
exec go test $race "$@"
