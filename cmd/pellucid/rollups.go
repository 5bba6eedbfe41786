package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/dashboards/api"
)

const (
	// asideEvery is the time between looks for damaged parts of rollups: the embedded
	// engine may be started again at any time, and finds them then.
	asideEvery = time.Hour
	// recountEvery is the least time between two recounts for rows that no rollup counts.
	recountEvery = 15 * time.Second
	// asideFile is where the data folder keeps which of them were made good.
	asideFile = "rollups.json"
)

// aside are the damaged parts of rollups after which these were counted again. The
// server never takes such parts away, so each is told at every start. Short says that
// rows may be stored that the rollups do not count.
type aside struct {
	Mended []string `json:"mended"`
	Short  bool     `json:"short,omitempty"`
}

// rollups is what a server knows of its own.
type rollups struct {
	mu sync.Mutex // guards asideFile and said
	// said counts how often they were said to be short, kick has the loop look.
	said int
	kick chan struct{}
	// spoolMissed says that this start found another spool than the one before.
	spoolMissed bool
}

// uncounted notes that rows are stored which the rollups may not count, and has them
// counted again.
func (s *server) uncounted() {
	s.rollups.mu.Lock()
	defer s.rollups.mu.Unlock()
	s.rollups.said++
	known, err := readAside(s.cfg.Data)
	if err == nil && !known.Short {
		known.Short = true
		err = known.write(s.cfg.Data)
	}
	if err != nil {
		s.log.Error("it is not noted that the rollups may count less than is stored", "error", err)
	}
	select {
	case s.rollups.kick <- struct{}{}:
	default:
	}
}

// spoolMissed is called where the spool is not the one that it was.
func (s *server) spoolMissed() {
	s.rollups.spoolMissed = true
	s.uncounted()
}

// counted notes after which parts the rollups count what is stored, unless they were said
// to be short since said was read.
func (s *server) counted(mended []string, said int) error {
	s.rollups.mu.Lock()
	defer s.rollups.mu.Unlock()
	return aside{Mended: mended, Short: s.rollups.said != said}.write(s.cfg.Data)
}

func (s *server) saidShort() int {
	s.rollups.mu.Lock()
	defer s.rollups.mu.Unlock()
	return s.rollups.said
}

// readAside reads the file. Of one that is damaged nothing is known: the rollups are held
// against the rows, and it is written anew.
func readAside(data string) (aside, error) {
	var a aside
	b, err := os.ReadFile(filepath.Join(data, asideFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil && json.Unmarshal(b, &a) != nil {
		return aside{Short: true}, nil
	}
	if err != nil {
		return aside{}, fmt.Errorf("read which parts of rollups were made good: %w", err)
	}
	return a, nil
}

// write replaces the file: it is whole at any time, after a power cut too.
func (a aside) write(data string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := vfs.Replace(filepath.Join(data, asideFile), b); err != nil {
		return fmt.Errorf("note which parts of rollups were made good: %w", err)
	}
	return nil
}

// damaged returns the parts of rollups that are set aside, and those of them after which
// the rollups were not counted again; short says that they may count less than is stored.
func damaged(ctx context.Context, store *clickhouse.Store, data string) (all, open []string, short bool, err error) {
	if all, err = store.SetAside(ctx); err != nil {
		return nil, nil, false, err
	}
	known, err := readAside(data)
	for _, part := range all {
		if !slices.Contains(known.Mended, part) {
			open = append(open, part)
		}
	}
	return all, open, known.Short, err
}

// startRollups has the server look for damaged parts of its rollups, now and every hour.
func (s *server) startRollups(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.rollupsLoop(ctx)
	}()
	s.onStop("rollups", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
	return nil
}

func (s *server) rollupsLoop(ctx context.Context) {
	told := ""
	for {
		wait, kick := asideEvery, s.rollups.kick
		_, open, short, err := damaged(ctx, s.store, s.cfg.Data)
		if err == nil && s.engine != nil {
			var unreadable []string
			unreadable, err = s.store.DamagedParts(ctx)
			open = append(open, unreadable...)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("look for damaged parts of rollups", "error", err)
		}
		if list := strings.Join(open, " "); list != "" && list != told {
			told = list
			s.log.Error("parts of rollups are damaged: these count less than there is, or cannot be read, until they are counted again from the rows",
				"parts", len(open), "first", open[0], "by hand", "pellucid rollups repair --url "+s.url, "by itself", s.engine != nil)
		}
		if short {
			kick, wait = nil, recountEvery
		}
		if short && told != "short" && len(open) == 0 {
			told = "short"
			s.log.Warn("rows are stored that the rollups may not count: these are held against them", "counted again by itself", s.engine != nil)
		}
		// Into another's ClickHouse other servers may write, whose rows on their way would
		// count as short: that is for its operator to judge.
		if short || len(open) > 0 && s.engine != nil {
			out, err := s.recount(collector.WithActor(ctx, collector.OwnActor), clickhouse.Recounting{Repair: s.engine != nil})
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, errBusy), errors.Is(err, errRecountNoRoom):
				wait = retentionRetry
			case err != nil:
				s.log.Error("the rollups are not counted again: the next look tries again", "error", err)
			case s.engine == nil && len(out.Short)+len(out.Damaged) > 0:
				wait, kick = asideEvery, s.rollups.kick
				s.log.Error("the rollups count less than is stored", "rollups", len(out.Short), "damaged parts", len(out.Damaged), "by hand", "pellucid rollups repair --url "+s.url)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-time.After(wait):
		}
	}
}

const errRecountNoRoom = notNow("the disk of ClickHouse is full, and what is on its way can be neither stored nor counted: free some room and ask again")

// recount holds the rollups against the rows. What is changed is recorded: before, and
// when it is done.
func (s *server) recount(ctx context.Context, cfg clickhouse.Recounting) (*clickhouse.Recount, error) {
	if s.noRoom() { // the batch on its way would be waited for
		return nil, errRecountNoRoom
	}
	if !s.erasing.tryTake() {
		return nil, errBusy
	}
	defer s.erasing.give()
	// An erasure amid a day could be counted in part, and none is to wait for all of them.
	told := cfg.Progress
	cfg.Progress = func(done, of int) error {
		s.erasing.pass()
		if told == nil {
			return nil
		}
		return told(done, of)
	}
	all, _, _, err := damaged(ctx, s.store, s.cfg.Data)
	said := s.saidShort()
	if err != nil {
		s.log.Warn("look for damaged parts of rollups", "error", err)
	}
	began, begun := time.Now(), false
	entry := audit.Entry{Action: "rollups.repair", Object: "bins_1m and traffic_1m"}
	cfg.Begin = func() error {
		e := entry
		e.Outcome, begun = "begun", true
		return s.audit.Append(ctx, e, true)
	}
	out, err := s.writer.Recount(ctx, cfg)
	if begun {
		entry.Counts = map[string]int64{}
		for _, sh := range out.Short {
			entry.Counts[sh.Rollup+" minutes"] += int64(sh.Minutes)
		}
		if err != nil {
			entry.Outcome = "failed"
		}
		err = errors.Join(err, s.audit.Append(context.WithoutCancel(ctx), entry, true))
	}
	if err != nil || !cfg.Repair && len(out.Short)+len(out.Damaged) > 0 {
		return out, err
	}
	if !cfg.Repair {
		known, err := readAside(s.cfg.Data)
		if err != nil || !known.Short {
			return out, err
		}
		return out, s.counted(known.Mended, said)
	}
	// Those it has taken out are set aside now.
	if len(out.Damaged) > 0 {
		if all, _, _, err = damaged(ctx, s.store, s.cfg.Data); err != nil {
			return out, err
		}
	}
	for _, sh := range out.Short {
		s.log.Warn("a rollup was counted again from the rows", "rollup", sh.Rollup, "model", sh.Model, "version", sh.Version,
			"from", sh.From, "to", sh.To, "minutes", sh.Minutes)
	}
	s.log.Info("the rollups count the rows that are stored", "days", out.Days, "short", len(out.Short), "took", time.Since(began))
	return out, s.counted(all, said)
}

// recountRollups is recount for a caller, who is told how far it is.
func (s *server) recountRollups(ctx context.Context, r api.RecountRequest, tell func(api.Recount) error) error {
	var said time.Time
	out, err := s.recount(ctx, clickhouse.Recounting{Repair: r.Repair, Progress: func(done, of int) error {
		if time.Since(said) < 100*time.Millisecond {
			return nil
		}
		said = time.Now()
		return tell(api.Recount{Days: done, Of: of})
	}})
	if err != nil {
		return err
	}
	last := api.Recount{Days: out.Days, Of: out.Days, Done: true, Repaired: r.Repair, Damaged: out.Damaged, Unread: out.Unread}
	for _, sh := range out.Short {
		last.Short = append(last.Short, api.Shortage(sh))
	}
	return tell(last)
}

// checkRollups fails where parts of rollups are damaged that were not made good.
func checkRollups(ctx context.Context, p patient) (string, error) {
	return p.ask(ctx, func(ctx context.Context, s *clickhouse.Store) (string, error) {
		all, open, short, err := damaged(ctx, s, p.Data)
		switch {
		case err == nil && len(open) > 0:
			err = fmt.Errorf("%d damaged parts of rollups were set aside (%s) and are not made good: pellucid rollups repair", len(open), open[0])
		case err == nil && short:
			err = errors.New("rows are stored that the rollups may not count: pellucid rollups repair, where the running server does not do it within minutes")
		}
		return fmt.Sprintf("%d damaged parts, made good", len(all)), err
	})
}

func rollupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollups", Short: "Hold the sums by minute against the rows that are stored, and count them again",
		Long: `Drift, traffic and latency are read from sums by minute (bins_1m, traffic_1m). Where
ClickHouse has set a damaged part of them aside they count less than there is; where
bits of a part have flipped, pages that read it fail, until repair sets it aside. The
running server holds them against the rows, between two batches, a day of a version
at a time; predictions go on. What an erasure or retention has taken from the rows
stays in the sums: these are never made smaller.

With the embedded ClickHouse the server does this by itself when it finds a damaged
part. Stop all other servers that write to the same ClickHouse first: their rows
on the way would count as missing.`,
		Example: "  pellucid rollups check\n  pellucid rollups repair --url http://127.0.0.1:8080", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	sub := func(use, short, example string, repair bool) *cobra.Command {
		var url, format string
		c := &cobra.Command{
			Use: use, Short: short, Example: example, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if format != "text" && format != "json" {
					return usage(fmt.Errorf("--format %q is neither text nor json", format))
				}
				return recountOf(cmd, strings.TrimRight(url, "/"), repair, format)
			},
		}
		c.Flags().StringVar(&url, "url", "http://"+defaults().HTTP, "the running server")
		c.Flags().StringVar(&format, "format", "text", "text or json")
		return c
	}
	cmd.AddCommand(
		sub("check", "Tell what is short, by version and time; exits 1 where something is", "  pellucid rollups check --format json", false),
		sub("repair", "Count again what is short", "  pellucid rollups repair", true))
	return cmd
}

// recountOf asks the server, shows how far it is, and prints what came of it.
func recountOf(cmd *cobra.Command, url string, repair bool, format string) error {
	to := subjectClient{url}
	resp, err := to.post(cmd.Context(), "/api/v1/rollups/recount", api.RecountRequest{Repair: repair})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	last, err := followRecount(resp.Body, newProgress(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(last)
	} else {
		_, err = io.WriteString(out, recountText(last))
	}
	if err == nil && (len(last.Short)+len(last.Damaged) > 0 && !repair || len(last.Unread) > 0) {
		err = silentError{errors.New("the rollups are short")}
	}
	return err
}

func followRecount(body io.Reader, p *progress) (*api.Recount, error) {
	r, done := bufio.NewReader(body), 0
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("ask the server: the answer breaks off: %w", err)
		}
		var got api.Recount
		switch err := json.Unmarshal(line, &got); {
		case err != nil:
			return nil, fmt.Errorf("read the answer: %w", err)
		case got.Error != "":
			return nil, errors.New(got.Error)
		case got.Done:
			p.finish()
			return &got, nil
		case done == 0:
			p.start("days of versions", got.Of)
		}
		p.add(got.Days - done)
		done = got.Days
	}
}

func recountText(r *api.Recount) string {
	var b strings.Builder
	for _, part := range r.Damaged {
		fmt.Fprintf(&b, "%s is damaged%s\n", part, map[bool]string{true: " and was set aside", false: ": its bytes are not those that were written"}[r.Repaired])
	}
	for _, sh := range r.Short {
		what := "short of"
		if r.Repaired {
			what = "counted again:"
		}
		fmt.Fprintf(&b, "%s: model %s, version %s, %s to %s: %d minutes, %s %.0f %s\n", sh.Rollup, sh.Model, sh.Version,
			sh.From.Format(time.RFC3339), sh.To.Format(time.RFC3339), sh.Minutes, what, sh.Missing, map[bool]string{true: "rows", false: "bins"}[sh.BinsID == ""])
	}
	for _, id := range r.Unread {
		fmt.Fprintf(&b, "bins_1m: rows under reference %s cannot all be counted: it, or a schema of theirs, is not stored\n", id)
	}
	switch {
	case len(r.Damaged) > 0 && !r.Repaired:
		b.WriteString("nothing else was looked at; set them aside and count again with: pellucid rollups repair\n")
	case len(r.Short) == 0:
		fmt.Fprintf(&b, "the rollups count every row of %d days\n", r.Days)
	case !r.Repaired:
		b.WriteString("count them again with: pellucid rollups repair\n")
	}
	return b.String()
}
