#!/usr/bin/env bash
# Makes the Go code of the .proto files again, with the generators pinned here.
# Needs Python and Go: collector/proxy/rpc/generate.sh
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check grpcio-tools==1.80.0
GOBIN=$work go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$work go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
for file in pellucidv1/pellucid.proto inference/inference.proto; do
  PATH=$work:$PATH "$work/venv/bin/python" -m grpc_tools.protoc -I . \
    --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative "$file"
done
