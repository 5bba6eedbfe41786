#!/usr/bin/env bash
# Builds the release archives into dist/, with their SHA-256.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${VERSION:-$(git describe --tags --always --dirty)}
rm -rf dist && mkdir dist
for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do
  os=${target%/*} arch=${target#*/} name=pellucid-$version-${target/\//-}
  mkdir "dist/$name"
  suffix=""; [ "$os" = windows ] && suffix=.exe
  CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$version" -o "dist/$name/pellucid$suffix" ./cmd/pellucid
  cp README.md LICENSE NOTICE CHANGELOG.md otel-config.yaml otel-config-predictions.yaml deploy/pellucid.service "dist/$name/"
  tar -C dist -czf "dist/$name.tar.gz" "$name"
  rm -r "dist/${name:?}"
done
(cd dist && sha256sum ./*.tar.gz > SHA256SUMS)
ls -l dist
