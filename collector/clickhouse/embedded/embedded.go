// Package embedded runs a real ClickHouse as a supervised child process, so that
// one binary needs no database server beside it. It finds or fetches the engine
// (Ensure), starts it on loopback ports with passwords of its own (Start),
// starts it again with back-off when it dies, and takes it down on Stop.
//
// The engine is either the chDB library, loaded by a child that is our own
// binary under the hidden subcommand "__clickhouse", or a `clickhouse` server
// binary. The library must never be loaded into the serving process: a crash of
// the database must not be a crash of the server.
//
// Invariants: the child never outlives its parent (Linux: a parent-death
// signal); one data folder has one engine (a file lock); passwords and the
// configuration are readable by the owner only; the ports and passwords of a
// folder stay the same over restarts of the child.
package embedded

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Version is the npm package version of the pinned engine; MinVersion the
// oldest ClickHouse release that is relied on.
const (
	Version    = "26.7.3-stable.1"
	MinVersion = "26.3"
)

// ErrNoEngine is wrapped by Ensure's error when no engine can be had; the
// message names every way to give one.
var ErrNoEngine = errors.New("no ClickHouse engine")

// ErrLocked is wrapped by Start's error when another process runs an engine on
// the same folder.
var ErrLocked = errors.New("folder is in use by another process")

// Config says where the engine comes from, where its data lives and what it may
// use. Only Dir is required.
type Config struct {
	// Dir is the data folder. It is created with mode 0700.
	Dir string
	// Engine is an explicit engine: a libchdb.so, a `clickhouse` binary, or the
	// npm package's .tgz fetched beforehand. Empty means: look and fetch.
	Engine string
	// CacheDir keeps the fetched engine; empty means the user's cache folder
	// (os.UserCacheDir) and in it pellucid/engine.
	CacheDir string
	// MemoryBytes caps the engine's memory; 0 means 1 GiB.
	MemoryBytes int64
	// Threads caps the cores of one query; 0 means 2.
	Threads int
	// Databases are further databases that the app user may create and use, as
	// names or prefixes ending in "*". "default" is always granted.
	Databases []string
	// Spare reports whether a table of that name may go where its definition was not written
	// whole, on a full disk: with such a file the engine never starts. nil spares none.
	Spare func(table string) bool
	// Extra is put into the engine's configuration as it is (XML): the other servers of
	// a cluster, say.
	Extra string
	// ChildCommand starts the child; nil means this executable and the hidden
	// subcommand. A test whose own binary is instrumented names another.
	ChildCommand []string
	// StartTimeout bounds the wait for the first answer; 0 means 60 s.
	StartTimeout time.Duration
	// StopGrace is how long a clean stop may take before the child is killed;
	// 0 means 10 s.
	StopGrace time.Duration
	// Progress gets the fetch's progress: a bar when it is a terminal, plain
	// lines otherwise; nil means os.Stderr.
	Progress io.Writer
	// Log gets restarts and stops; nil means slog.Default.
	Log *slog.Logger
	// OnExit is called after each end of the child that was not asked for, with
	// the number of such ends; it must not block. nil means none.
	OnExit func(err error, count int64)
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("embedded clickhouse: no data folder given")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("resolve folder %q: %w", c.Dir, err)
	}
	c.Dir = dir
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 1 << 30
	}
	if c.MemoryBytes < 150<<20 {
		return c, fmt.Errorf("memory cap of %d bytes: the engine needs at least 150 MiB", c.MemoryBytes)
	}
	if c.Threads == 0 {
		c.Threads = 2
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 60 * time.Second
	}
	if c.StopGrace == 0 {
		c.StopGrace = 10 * time.Second
	}
	for _, d := range c.Databases {
		if !plainName(strings.TrimSuffix(d, "*")) {
			return c, fmt.Errorf("database %q: only letters, digits and underscores", d)
		}
	}
	return c.engineDefaults()
}

// engineDefaults fills what Ensure alone needs.
func (c Config) engineDefaults() (Config, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Progress == nil {
		c.Progress = os.Stderr
	}
	if c.CacheDir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return c, fmt.Errorf("find the user's cache folder: %w", err)
		}
		c.CacheDir = filepath.Join(base, "pellucid", "engine")
	}
	return c, nil
}

func plainName(s string) bool {
	for _, r := range s {
		if r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return s != ""
}

// Ways names every way to give Pellucid a ClickHouse, for error messages.
const Ways = "give the address of a server (--clickhouse clickhouse://user:password@host:9000/database), " +
	"or an engine (--engine PATH of a libchdb.so or of a `clickhouse` binary of " + MinVersion + " or newer), " +
	"or put such a `clickhouse` on the PATH, or (Linux x86-64) have npm fetch " + packageName + "@" + Version
