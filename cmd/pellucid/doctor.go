package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/keys"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/collector/spool"
)

func doctorCommand() *cobra.Command {
	var format string
	var heads []string
	var tables bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check what Pellucid needs on this machine, and the state of a data folder",
		Long: `Prints one line a check, ok or FAIL with why, and exits 1 where one failed. It
changes nothing and may be run while a server uses the folder.

The audit log is followed entry by entry, and held against its heads: the one in
the folder, those of audit.head_file, and those of --audit-head. Only a head that
was kept elsewhere shows that somebody with the key cut the log or wrote it anew.

With --tables the store reads every part of every table and holds it against its
checksums, which takes as long as its disk does: else damage there is noticed when
a query reads it. The server has to run. How far it is is told on stderr.`,
		Example: `  pellucid doctor --data pellucid-data
  pellucid doctor --data pellucid-data --audit-head /mnt/elsewhere/heads --format json
  pellucid doctor --data pellucid-data --tables`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usage(fmt.Errorf("--format %q is neither text nor json", format))
			}
			cfg, err := loadConfig(cmd.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			p := patient{config: cfg, heads: heads}
			if tables {
				p.tables = cmd.ErrOrStderr()
			}
			return doctor(cmd.Context(), cmd.OutOrStdout(), p, format)
		},
	}
	new(config).flags(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&tables, "tables", false, "have the store read all of its tables and check them")
	cmd.Flags().StringSliceVar(&heads, "audit-head", nil, "a file of the audit log's heads, kept elsewhere")
	return cmd
}

// patient is what the doctor looks at.
type patient struct {
	config
	heads []string // files of the audit log's heads beside the configuration's
	// tables gets how far the check of the tables is; nil where nobody asked for it.
	tables io.Writer
}

// check is one thing the doctor looks at.
type check struct {
	name string
	look func(ctx context.Context, p patient) (string, error)
}

var checks = []check{
	{"platform", func(context.Context, patient) (string, error) {
		return runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version(), nil
	}},
	{"address", checkAddress},
	{"models", func(_ context.Context, p patient) (string, error) {
		entries, err := os.ReadDir(p.Models)
		return fmt.Sprintf("%d entries in %s", len(entries), p.Models), err
	}},
	{"engine", func(ctx context.Context, p patient) (string, error) {
		if p.ClickHouse != "" {
			return "not needed: --clickhouse is given", nil
		}
		return embedded.Ensure(ctx, embedded.Config{Engine: p.Engine})
	}},
	{"store", checkStore},
	{"rollups", checkRollups},
	{"damaged rows", checkAside},
	{"tables", checkParts},
	{"spool", func(_ context.Context, p patient) (string, error) {
		dir := filepath.Join(p.Data, "spool")
		if !exists(dir) {
			return "none yet", nil
		}
		return "every frame is whole and none is gone", verifySpool(io.Discard, dir)
	}},
	{"events", checkEvents},
	{"folders", checkFolders},
	{"kept", checkKept},
	{"disk", checkDisk},
	{"audit", checkAudit},
	{"keys", checkKeys},
	{"private key", checkPrivateKey},
}

func checkAddress(ctx context.Context, p patient) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.HTTP)
	if err != nil {
		return p.HTTP + " is taken (by a running server?)", nil
	}
	return p.HTTP + " is free", l.Close()
}

// storeTime bounds the doctor's questions to the store.
const storeTime = 10 * time.Second

// synced says that the store's tables have to be on the disk when an insert is confirmed.
func (c *config) synced() bool { return c.Capture.Durability == string(spool.LevelMachine) }

// openStore reaches the store, if it runs; else found says that it does not.
func (p *patient) openStore(ctx context.Context) (s *clickhouse.Store, found string, err error) {
	dsn := p.ClickHouse
	if dsn == "" {
		env, err := embedded.ReadEnv(filepath.Join(p.Data, "clickhouse"))
		if err != nil {
			return nil, "embedded, not running", nil //nolint:nilerr // there is none yet
		}
		dsn = env.DSN()
	}
	s, err = clickhouse.Open(ctx, clickhouse.Config{DSN: dsn, Cluster: p.Cluster, Synced: p.synced()})
	if err != nil && p.ClickHouse == "" && errors.Is(err, collector.ErrUnavailable) {
		return nil, "embedded, not running", nil
	}
	return s, "", err
}

// checkStore asks the store, if it runs, for its version, and refuses tables whose
// settings would lose or double rows.
func checkStore(ctx context.Context, p patient) (string, error) {
	return p.ask(ctx, func(_ context.Context, s *clickhouse.Store) (string, error) {
		return "ClickHouse " + s.Version() + " answers, its tables keep what they are given once", nil
	})
}

// ask asks the store something within storeTime, where there is one.
func (p *patient) ask(ctx context.Context, about func(context.Context, *clickhouse.Store) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	s, found, err := p.openStore(ctx)
	if s == nil {
		return found, err
	}
	found, err = about(ctx, s)
	return found, errors.Join(err, s.Close())
}

// checkAside fails where the store has set damaged parts of rows aside.
func checkAside(ctx context.Context, p patient) (string, error) {
	return p.ask(ctx, func(ctx context.Context, s *clickhouse.Store) (string, error) {
		parts, err := s.SetAsideRows(ctx)
		if err == nil && len(parts) > 0 {
			err = errors.New(asideText(parts))
		}
		return "none was set aside", err
	})
}

// asideText says of which tables damaged parts were set aside, and what that means of their
// rows. Whether an insert failed or its part was damaged later their folders do not say.
func asideText(parts []string) string {
	count := map[string]int{}
	for _, p := range parts {
		table, _, _ := strings.Cut(p, "/")
		count[table]++
	}
	var tables []string
	for _, table := range slices.Sorted(maps.Keys(count)) {
		tables = append(tables, fmt.Sprintf("%d of %s", count[table], table))
	}
	again := "they are stored, or wait in the spool"
	if count["otel_traces"]+count["otel_traces_trace_id_ts"] > 0 {
		again += " (but spans that were given up, which pellucid_telemetry_spans_total counts, and those that waited when the server ended)"
	}
	return fmt.Sprintf("%d damaged parts were set aside (%s first; %s). Records and spans in an insert that failed, as where a full disk cut it, were sent again: %s. "+
		"What was damaged after its insert was confirmed is gone where nobody sent it again. Which of the two it is the folders do not say, so this is said until they, "+
		"detached/broken* in clickhouse/data/store, are deleted", len(parts), parts[0], strings.Join(tables, ", "), again)
}

// checkParts has the store check every part of its tables. What it finds is told as it is
// found, and the first of it once more in the result.
func checkParts(ctx context.Context, p patient) (string, error) {
	if p.tables == nil {
		return "not asked for (--tables)", nil
	}
	opening, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	s, found, err := p.openStore(opening)
	if err != nil {
		return "", err
	}
	if s == nil {
		return "", fmt.Errorf("the tables cannot be checked: %s", found)
	}
	tables, parts, damaged := 0, 0, 0
	var first []string
	err = s.CheckTables(ctx, clickhouse.TableChecks{
		Table: func(table string, parts, bytes uint64) {
			tables++
			fmt.Fprintf(p.tables, "checking %s: %d parts, %d MiB\n", table, parts, bytes>>20)
		},
		Part: func(d clickhouse.DamagedPart, whole bool) {
			parts++
			if whole {
				return
			}
			damaged++
			fmt.Fprintf(p.tables, "damaged: %s/%s: %s\n", d.Table, d.Part, d.Reason)
			if len(first) < 5 {
				first = append(first, d.Table+"/"+d.Part)
			}
		},
	})
	if err = errors.Join(err, s.Close()); damaged > 0 {
		err = errors.Join(fmt.Errorf("%d damaged parts: %s", damaged, strings.Join(first, ", ")), err)
	}
	return fmt.Sprintf("%d parts of %d tables are as they were written", parts, tables), err
}

// checkKept holds the versions that past predictions are explained with against
// their digests, and against the list of those that there must be.
func checkKept(_ context.Context, p patient) (string, error) {
	dir := filepath.Join(p.Data, "models")
	gone, err := repository.MissingVersions(filepath.Join(p.Data, keptFile), dir)
	if err != nil {
		return "", err
	}
	unlisted, err := repository.UnlistedVersions(filepath.Join(p.Data, keptFile), dir)
	if err != nil {
		return "", err
	}
	var missing []error
	if len(unlisted) > 0 {
		missing = append(missing, fmt.Errorf("%s does not name %d versions that are in the folder models: it was emptied or taken out, and others may have gone", keptFile, len(unlisted)))
	}
	for _, v := range gone {
		missing = append(missing, errors.New(v.Gone()))
	}
	missing = append(missing, repository.CheckSaid(dir, filepath.Join(p.Data, privateFile), filepath.Join(p.Data, keptFile)))
	if !exists(dir) {
		return "none yet", errors.Join(missing...)
	}
	good, wrong, err := repository.CheckStore(dir)
	wrong = append(wrong, missing...)
	return fmt.Sprintf("%d versions are what their digests say", good), errors.Join(append(wrong, err)...)
}

// checkDisk fails where the spool or the engine would soon find no room.
func checkDisk(_ context.Context, p patient) (string, error) {
	dir := p.Data
	for !exists(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	size, free := embedded.Space(dir)
	if size == 0 {
		return "free space cannot be told here", nil
	}
	found := fmt.Sprintf("%d MiB of %d MiB free", free>>20, size>>20)
	if least := 4 * embedded.KeepFree(dir); free < least {
		return "", fmt.Errorf("%s: the spool takes nothing more below %d MiB", found, least>>20)
	}
	return found, nil
}

func checkAudit(_ context.Context, p patient) (string, error) {
	dir := filepath.Join(p.Data, "audit")
	heads := p.heads
	if p.Audit.HeadFile != "" {
		heads = append(heads, p.Audit.HeadFile)
	}
	if !exists(dir) && len(heads) == 0 {
		return "none yet", nil
	}
	key, err := keys.ReadSecret(p.auditKey())
	if err != nil {
		return "", fmt.Errorf("read the audit log's key: %w", err)
	}
	r, err := audit.Verify(dir, key, heads, nil)
	if err != nil {
		return "", err
	}
	found := fmt.Sprintf("entries %d to %d are as they were written, %d heads fit", r.First, r.Last, r.Heads)
	if r.Older > 0 {
		found += fmt.Sprintf(" (%d are of entries older than the log)", r.Older)
	}
	if r.Unfinished > 0 {
		found += fmt.Sprintf(", %d bytes at the end are no entry yet", r.Unfinished)
	}
	if !r.OK() {
		return "", errors.New(strings.Join(r.Problems, "; "))
	}
	return found, nil
}

// result is one line of the doctor's.
type result struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// doctor looks at everything and fails when anything is wrong.
func doctor(ctx context.Context, w io.Writer, p patient, format string) error {
	bad := false
	var results []result
	for _, c := range checks {
		found, err := c.look(ctx, p)
		if err != nil {
			bad, found = true, strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		results = append(results, result{c.name, err == nil, found})
	}
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(map[string]any{"ok": !bad, "checks": results}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			state := "ok  "
			if !r.OK {
				state = "FAIL"
			}
			fmt.Fprintf(w, "%s %-11s %s\n", state, r.Check, r.Detail)
		}
	}
	if bad {
		return silentError{errors.New("checks failed")}
	}
	return nil
}
