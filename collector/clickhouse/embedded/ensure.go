package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Ensure returns the path of an engine: the explicit one, else the library in
// the cache, else a `clickhouse` of MinVersion or newer on the PATH, else the
// library fetched through npm (once; concurrent callers wait for each other).
// When there is none the error wraps ErrNoEngine and names all the ways.
func Ensure(ctx context.Context, cfg Config) (string, error) {
	cfg, err := cfg.engineDefaults()
	if err != nil {
		return "", err
	}
	if cfg.Engine != "" {
		return ensureExplicit(ctx, cfg)
	}
	lib := filepath.Join(cfg.CacheDir, Version, libraryName)
	if librarySupported && cachedLibrary(lib) {
		return lib, nil
	}
	var tried []string
	if path, err := exec.LookPath("clickhouse"); err == nil {
		if err = checkServer(ctx, path); err == nil {
			return path, nil
		}
		tried = append(tried, err.Error())
	}
	if !librarySupported {
		tried = append(tried, "this build has no embedded engine (it needs linux/amd64 and no noembedded tag)")
		return "", noEngine(tried)
	}
	if err := fetchLibrary(ctx, cfg, lib); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("fetch the ClickHouse engine: %w", err)
		}
		return "", noEngine(append(tried, err.Error()))
	}
	return lib, nil
}

func noEngine(tried []string) error {
	return fmt.Errorf("%w: %s; %s", ErrNoEngine, strings.Join(tried, "; "), Ways)
}

func ensureExplicit(ctx context.Context, cfg Config) (string, error) {
	path, err := filepath.Abs(cfg.Engine)
	if err != nil {
		return "", fmt.Errorf("resolve engine %q: %w", cfg.Engine, err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("open engine: %w", err)
	}
	if st.IsDir() {
		return "", fmt.Errorf("open engine %q: it is a folder, not a libchdb.so or a clickhouse binary", path)
	}
	switch {
	case isLibrary(path):
		if !librarySupported {
			return "", noEngine([]string{fmt.Sprintf("engine %q is a library, which this build cannot load (it needs linux/amd64 and no noembedded tag)", path)})
		}
		return path, nil
	case strings.HasSuffix(path, ".tgz"):
		if !librarySupported {
			return "", noEngine([]string{fmt.Sprintf("engine package %q holds a library, which this build cannot load", path)})
		}
		lib := filepath.Join(cfg.CacheDir, Version, libraryName)
		return lib, installPackage(ctx, cfg, path, lib)
	}
	return path, checkServer(ctx, path)
}

func isLibrary(path string) bool {
	base := filepath.Base(path)
	return strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
}

var versionPattern = regexp.MustCompile(`version (\d+)\.(\d+)\.([0-9.]*)`)

// checkServer runs `PATH server --version` and refuses, by name, what is no
// ClickHouse or too old a one.
func checkServer(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "server", "--version").CombinedOutput()
	m := versionPattern.FindStringSubmatch(string(out))
	if m == nil {
		if err == nil {
			err = errors.New("its --version names no version")
		}
		return fmt.Errorf("ask engine %q for its version: %w", path, err)
	}
	return CheckVersion(fmt.Sprintf("engine %q", path), strings.TrimRight(m[1]+"."+m[2]+"."+m[3], "."))
}

// CheckVersion returns an error naming what and its version when that is older
// than MinVersion, or no version at all.
func CheckVersion(what, version string) error {
	have, ok := majorMinor(version)
	if !ok {
		return fmt.Errorf("%s has version %q, which is not a ClickHouse version", what, version)
	}
	want, _ := majorMinor(MinVersion)
	if have[0] < want[0] || have[0] == want[0] && have[1] < want[1] {
		return fmt.Errorf("%s is ClickHouse %s, older than %s, the oldest that keeps every insert exactly once", what, version, MinVersion)
	}
	return nil
}

func majorMinor(version string) (v [2]int, ok bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}
