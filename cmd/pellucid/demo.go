package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
)

//go:embed demo/data/flights.parquet demo/data/rules.yaml demo/data/models
var demoFiles embed.FS

// replayFrom is the first month that is replayed: before it the models were
// trained (January, February) and their reference was taken (March).
const replayFrom = 4

// demoMark is a file in the demo's data folder. Only a folder that has it is
// emptied for a new run.
const demoMark = "this-is-a-pellucid-demo"

func demoCommand() *cobra.Command {
	var pace time.Duration
	var exit bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Serve two flight-delay models and replay a year of real flights against them",
		Long: `Serves a gradient-boosted model and a small neural network that predict whether
a flight out of New York will be late, and replays the flights of April to
December 2013 against the real HTTP endpoint, each on its own event time; labels
arrive when the flight has landed. Then it prints where to look, and keeps
serving until it is interrupted. It needs nothing but this binary (and, once, npm
to fetch the ClickHouse engine).`,
		Example: `  pellucid demo
  pellucid demo --pace 0s            # as fast as it goes
  pellucid demo --exit --data /tmp/demo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("data") {
				if cfg.Data, err = demoFolder(); err != nil {
					return err
				}
			}
			return demo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), cfg, pace, exit)
		},
	}
	new(config).flags(cmd.Flags())
	cmd.Flags().Lookup("data").DefValue = "a folder in the user's cache"
	cmd.Flags().DurationVar(&pace, "pace", 2*time.Minute, "wall clock the replay takes at least")
	cmd.Flags().BoolVar(&exit, "exit", false, "exit after the replay instead of serving on")
	return cmd
}

func demoFolder() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w (choose one with --data)", err)
	}
	return filepath.Join(base, "pellucid", "demo"), nil
}

// layOut empties the folder of an earlier demo and writes this one's files.
func layOut(dir string) error {
	mark := filepath.Join(dir, demoMark)
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0 && !exists(mark):
		return usage(fmt.Errorf("folder %q is not empty and not a demo's: choose another with --data", dir))
	case err == nil:
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("empty the demo's folder: %w", err)
			}
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	files, err := fs.Sub(demoFiles, "demo/data")
	if err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(dir, "flights"), files)
}

func demo(ctx context.Context, out, errOut io.Writer, cfg config, pace time.Duration, exit bool) error {
	if err := demoFree(cfg.Data); err != nil {
		return err
	}
	if err := layOut(cfg.Data); err != nil {
		return err
	}
	cfg.Models = filepath.Join(cfg.Data, "flights", "models")
	cfg.Alerts.Rules = filepath.Join(cfg.Data, "flights", "rules.yaml")
	log := slog.New(slog.NewTextHandler(errOut, nil))
	s, err := startServer(ctx, cfg, log, errOut)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Serving flights_gbm (XGBoost) and flights_mlp (ONNX) on %s\n", s.url)
	fmt.Fprintf(out, "Replaying the flights of April to December 2013; look at %s/ui/ meanwhile\n", s.url)
	err = runDemo(ctx, out, errOut, s, pace)
	if err == nil && !exit {
		fmt.Fprintln(out, "\nServing on. Stop with Ctrl-C.")
		<-ctx.Done()
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, s.stopNow(ctx))
}

// demoFree refuses a folder on which a server runs, before it is emptied.
func demoFree(dir string) error {
	path := filepath.Join(dir, "spool")
	if !exists(path) {
		return nil
	}
	sp, err := spool.Open(spool.Config{Dir: path})
	if err != nil {
		return fmt.Errorf("use folder %q for the demo: %w (stop the other one, or choose a folder with --data)", dir, err)
	}
	return sp.Close()
}

func runDemo(ctx context.Context, out, errOut io.Writer, s *server, pace time.Duration) error {
	f, err := readFlights(filepath.Join(s.cfg.Data, "flights", "flights.parquet"), replayFrom)
	if err != nil {
		return err
	}
	r := &replay{
		to:   &poster{url: s.url, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}},
		pace: pace, bar: newProgress(errOut),
	}
	for _, v := range s.models.Live() {
		m := replayModel{name: v.Name}
		for _, feature := range v.Info.Features {
			m.features = append(m.features, feature.Name)
		}
		r.models = append(r.models, m)
	}
	began := time.Now()
	if err := r.run(ctx, f); err != nil {
		return err
	}
	last := f.list[len(f.list)-1].departs
	if err := s.settle(ctx, last); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d predictions of %d flights in %s\n", r.sent, len(f.list), time.Since(began).Round(time.Second))
	return s.tour(ctx, out)
}

// settle waits until everything sent is stored and every rule has been judged
// up to the end of the replay.
func (s *server) settle(ctx context.Context, last time.Time) error {
	deadline := time.Now().Add(3 * time.Minute)
	for time.Now().Before(deadline) {
		st := s.spool.Stats()
		done := st.Appended == st.Acked
		for _, v := range s.models.Live() {
			done = done && !s.monitor.judgedTo(v.Name).Before(last.Add(-lateness-time.Minute))
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("the store has not taken all predictions within three minutes: see the log above")
}

// tour prints where to look, and one of each thing there is to see.
func (s *server) tour(ctx context.Context, out io.Writer) error {
	fmt.Fprint(out, "\n", lines(
		"Overview     "+s.url+"/ui/",
		"Models       "+s.url+"/ui/models/flights_gbm  "+s.url+"/ui/models/flights_mlp",
		"Predictions  "+s.url+"/ui/predictions",
		"Alerts       "+s.url+"/ui/alerts  (as JSON: "+s.url+"/api/v2/alerts)",
		"Metrics      "+s.url+"/metrics",
		"SQL          pellucid clickhouse env --data "+s.cfg.Data))
	list := s.manager.Alerts()
	for _, state := range []alerts.State{alerts.Firing, alerts.Resolved} {
		for _, a := range list {
			if a.State == state {
				fmt.Fprintf(out, "\nOne alert that is %s: %s, since %s\n  %s\n", a.State, a.Rule, a.StartsAt.Format(time.DateOnly), a.Annotations["summary"])
				return s.tourPrediction(ctx, out, a)
			}
		}
	}
	return errors.New("no alert has fired in the whole year: that cannot be")
}

// tourPrediction explains one of the predictions behind an alert.
func (s *server) tourPrediction(ctx context.Context, out io.Writer, a alerts.Alert) error {
	if len(a.Samples) == 0 {
		return fmt.Errorf("alert %s names no prediction", a.Rule)
	}
	id := a.Samples[0]
	list, err := s.explainAndRecord(ctx, collector.Ref{Tenant: collector.DefaultTenant, ID: id}, collector.ExplainRequest{})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("prediction %s has no explanation", id)
	}
	e := list[0]
	fmt.Fprintf(out, "\nOne of its predictions, explained by %s: %s\n  base %.4f", e.Method, s.url+"/ui/predictions/"+id, e.Base)
	for _, at := range strongest(e.Attributions, 4) {
		fmt.Fprintf(out, "  %s %+.4f", at.Feature, at.Phi)
	}
	fmt.Fprintf(out, "  ...  = %.4f (%s; completeness residual %.1e)\n", e.Prediction, e.Space, e.Certificate.Residual)
	fmt.Fprintf(out, "  report: %s/ui/predictions/%s/report\n", s.url, id)
	return nil
}

// strongest returns the n attributions of the largest size.
func strongest(list []collector.Attribution, n int) []collector.Attribution {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b collector.Attribution) int { return cmp.Compare(math.Abs(b.Phi), math.Abs(a.Phi)) })
	return out[:min(n, len(out))]
}
