package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/alerts/notify"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/events"
	"github.com/pellucid/pellucid/collector/proxy/rpc"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/collector/telemetry"
	"github.com/pellucid/pellucid/explain"
)

// server is one running Pellucid. Its parts start in the order of this list,
// sinks before sources, and stop in the opposite one.
type server struct {
	cfg config
	log *slog.Logger
	// logs is the handler of log, which the telemetry is told of once there is one.
	logs *telemetry.LogTee

	// marks are of the folders of the data folder.
	marks     *marks
	engine    *embedded.Engine
	store     *clickhouse.Store
	spool     *spool.Spool
	dead      *spool.Dead
	telemetry *telemetry.Telemetry
	audit     *audit.Log
	intake    *telemetry.Intake
	events    *events.Room
	drops     events.Drops // what events has dropped
	models    *repository.Repository
	explainer *explain.Explainer
	capturer  *capture.Capturer
	writer    *clickhouse.Writer
	manager   *alerts.Manager
	self      *selfWatch
	webhooks  []*notify.Webhook
	monitor   *monitor
	proxy     *proxy.Server
	upstreams []*proxy.Upstream
	listener  net.Listener
	http      *http.Server
	// rpcListener and rpc are nil where gRPC is not answered.
	rpcListener net.Listener
	rpc         *rpc.Server

	// keyring has the keys of sealed fields, and binsFailed the minute in which they
	// were last missed.
	keyring    keyring
	binner     *collector.Binner
	binsFailed atomic.Int64
	// privateUpstream is set where the configuration of an upstream has private fields.
	privateUpstream bool
	// patterns find what is private by its form in texts; nil finds nothing.
	patterns *capture.Patterns

	rollups rollups
	// erasing is held by whoever deletes a subject's rows, or those that are past their
	// time, exporting by whoever reads a subject's: one reader may be slow.
	erasing    turn
	exporting  sync.Mutex
	settleTime time.Duration // tests set it
	// storeFull reports whether the embedded ClickHouse begins no insert for want of room;
	// nil where it is another's.
	storeFull func() bool
	// driveMu is held while dead letters are appended to the spool, and by an erasure:
	// what it deletes must not be on its way.
	driveMu sync.Mutex

	// retention is what the last run did.
	retention retentionState

	// url is where the server answers.
	url string
	// stops are what startServer has started, undone from the last to the first.
	stops []stopStep
}

// stopStep undoes one start. It reports what was left or lost, if anything.
type stopStep struct {
	what string
	stop func(ctx context.Context) error
}

func (s *server) onStop(what string, stop func(ctx context.Context) error) {
	s.stops = append(s.stops, stopStep{what, stop})
}

// startServer starts everything or nothing. progress takes the download of the
// engine, should it be needed.
func startServer(ctx context.Context, cfg config, log *slog.Logger, progress io.Writer) (*server, error) {
	tee := telemetry.NewLogTee(log.Handler())
	s := &server{cfg: cfg, log: slog.New(tee), logs: tee, erasing: make(turn, 1)}
	takeStdLog(s.log)
	s.marks = &marks{dir: cfg.Data, log: s.log, spoolMissed: s.spoolMissed}
	s.rollups.kick = make(chan struct{}, 1)
	s.keyring.cfg, s.keyring.told = &s.cfg, func(err error) { s.log.Error("keys of sealed fields", "error", err) }
	s.onStop("keys", func(context.Context) error { return s.keyring.close() })
	for _, start := range []func(context.Context) error{
		// A taken port is found out before anything else is started.
		s.listen, s.listenGRPC,
		func(ctx context.Context) error { return s.startStore(ctx, progress) },
		s.startSpool, s.startTelemetry, s.startAudit, s.startModels, s.startWriter, s.startAlerts, s.startRetention, s.startRollups, s.startHTTP, s.startGRPC, s.watchFolders,
	} {
		if err := start(ctx); err != nil {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return nil, errors.Join(err, s.stop(stopCtx))
		}
	}
	return s, nil
}

// stop undoes every start, the last first. What fails is logged and does not
// keep the rest from stopping.
func (s *server) stop(ctx context.Context) error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		if err := s.stops[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.stops[i].what, err))
		}
	}
	s.stops = nil
	return errors.Join(errs...)
}

// portWait is how long a start waits for a port that is taken: the kernel closes the
// sockets of a server that was killed a little after it is gone.
const portWait = time.Second

func takePort(ctx context.Context, address string) (net.Listener, error) {
	for began := time.Now(); ; {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Since(began) > portWait {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) listen(ctx context.Context) error {
	l, err := takePort(ctx, s.cfg.HTTP)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (another program has the port? choose one with --http)", s.cfg.HTTP, err)
	}
	s.listener = l
	s.url = "http://" + l.Addr().String()
	s.onStop("listener", func(context.Context) error {
		if s.http != nil {
			return nil // the HTTP server has closed it
		}
		return l.Close()
	})
	return nil
}

// listenGRPC takes the port of gRPC. Where the default is taken, by another Pellucid
// as a rule, the server does without; a port that was chosen must be free.
func (s *server) listenGRPC(ctx context.Context) error {
	if s.cfg.GRPC == "" {
		return nil
	}
	l, err := takePort(ctx, s.cfg.GRPC)
	switch {
	case err != nil && s.cfg.GRPC == defaults().GRPC:
		s.log.Warn("gRPC is not answered, since its default port is taken: choose one with --grpc", "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("listen on %s: %w (another program has the port? choose one with --grpc)", s.cfg.GRPC, err)
	}
	s.rpcListener = l
	s.onStop("gRPC listener", func(context.Context) error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil // its server has closed it
	})
	return nil
}

// startStore opens ClickHouse: the one named, or the embedded child.
func (s *server) startStore(ctx context.Context, progress io.Writer) error {
	dsn := s.cfg.ClickHouse
	if dsn == "" {
		found := s.marks.look(markedStore)
		dir, err := s.cfg.dir("clickhouse")
		if err != nil {
			return err
		}
		s.engine, err = embedded.Start(ctx, embedded.Config{
			Dir: dir, Engine: s.cfg.Engine, MemoryBytes: int64(s.cfg.EngineMemory), Progress: progress, Log: s.log,
			Spare: clickhouse.Passing,
		})
		if err != nil {
			return err
		}
		s.onStop("clickhouse engine", s.engine.Stop)
		s.marks.settle(found)
		dsn = s.engine.Env().DSN()
	}
	s.binner = &collector.Binner{Keys: s.keyring.keys, Failed: s.binFailure}
	cfg := clickhouse.Config{
		DSN: dsn, Cluster: s.cfg.Cluster, Bins: s.binner.Row, Clear: s.clearForms, Synced: s.cfg.synced(),
	}
	if s.engine == nil {
		host, err := os.Hostname()
		data, abs := filepath.Abs(s.cfg.Data)
		if err := errors.Join(err, abs); err != nil {
			return fmt.Errorf("tell this server from others of the same ClickHouse: %w", err)
		}
		cfg.Owner = host + "\x00" + data
	}
	err := s.openStore(ctx, cfg)
	if err != nil && s.engine != nil && ctx.Err() == nil {
		return fmt.Errorf("%w (to change something in it: pellucid clickhouse run --data %s)", err, s.cfg.Data)
	}
	return err
}

// How long a start waits for a ClickHouse that is away: the embedded one, which is
// started again when it dies, and one named, whose address may as well be wrong.
const (
	engineWait = time.Minute
	serverWait = 10 * time.Second
)

// openStore opens the store and brings its tables to the present schema, from the
// beginning where it goes away meanwhile: every step of it may be done twice.
func (s *server) openStore(ctx context.Context, cfg clickhouse.Config) error {
	most, wait := serverWait, 50*time.Millisecond
	if s.engine != nil {
		most = engineWait
	}
	for began, told := time.Now(), false; ; {
		store, err := clickhouse.Open(ctx, cfg)
		if err == nil {
			if err = store.Migrate(ctx); err == nil {
				s.store = store
				s.onStop("clickhouse connection", func(context.Context) error { return store.Close() })
				return nil
			}
			err = errors.Join(err, store.Close())
		}
		if !errors.Is(err, collector.ErrUnavailable) || time.Since(began)+wait > most {
			return err
		}
		if !told {
			told = true
			s.log.Warn("clickhouse is away: the start goes on when it is back", "error", err, "waits", most)
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func (s *server) startSpool(context.Context) error {
	found, dead := s.marks.look(markedSpool), s.marks.look(markedDead)
	dir, err := s.cfg.dir("spool")
	if err != nil {
		return err
	}
	cfg := spool.Config{Dir: dir, Level: spool.Level(s.cfg.Capture.Durability), MaxBytes: int64(s.cfg.Capture.SpoolBytes), Logger: s.log, Lost: s.marks.lostRecords}
	if s.engine != nil {
		// The embedded ClickHouse needs room on the same disk to work the spool off.
		cfg.MinFreeBytes = 4 * embedded.KeepFree(dir)
	}
	sp, err := spool.Open(cfg)
	if err != nil {
		return err
	}
	s.spool = sp
	s.onStop("spool", func(context.Context) error {
		left := sp.Stats().Appended - sp.Stats().Acked
		err := sp.Close()
		if left > 0 {
			s.log.Info("records left in the spool; the next start sends them", "records", left)
		}
		return err
	})
	s.marks.settle(found)
	s.marks.settle(dead)
	return s.openDead(dir)
}

func (s *server) startTelemetry(ctx context.Context) error {
	var err error
	if s.patterns, err = s.cfg.patterns(); err != nil {
		return err
	}
	cfg := telemetry.Config{
		ServiceVersion: build(), OTLPEndpoint: s.cfg.Telemetry.OTLP, SampleRatio: *s.cfg.Telemetry.Sample, Logger: s.log,
		KeepSlower: time.Duration(s.cfg.Telemetry.KeepSlower), RetryFor: s.cfg.Telemetry.retryFor,
	}
	if cfg.OTLPEndpoint == "" {
		cfg.WriteSpans = s.writeSpans
	}
	t, err := telemetry.New(ctx, cfg)
	if err != nil {
		return err
	}
	t.SetGlobal()
	s.telemetry = t
	s.logs.Send(t)
	s.onStop("telemetry", func(ctx context.Context) error {
		// Spans are worth a moment, not the whole time a stop may take: the store
		// may be away, and what it misses then is told and no failure of the stop.
		ctx, cancel := context.WithTimeout(ctx, spanTime)
		defer cancel()
		if err := t.Shutdown(ctx); err != nil {
			s.log.Warn("what was left of spans, metrics and log lines could not be written", "error", err)
		}
		return nil
	})
	return nil
}

func (s *server) startModels(ctx context.Context) error {
	found := s.marks.look(markedModels)
	store, err := s.cfg.dir("models")
	if err != nil {
		return err
	}
	s.marks.settle(found)
	dir := s.cfg.Models
	if dir != "" && !exists(dir) {
		s.log.Warn("there is no models folder: nothing is served from disk until there is one", "models", dir)
	}
	upstreams, err := s.upstreamConfigs()
	if err != nil {
		return err
	}
	rules, err := collector.ParsePrivateRules(s.cfg.Capture.Private)
	if err != nil {
		return usage(bad("capture.private", "%w", err))
	}
	s.models, err = repository.Open(ctx, repository.Config{
		Dir: dir, Store: store, Ours: s.marks.ours(markedModels), Kept: filepath.Join(s.cfg.Data, keptFile), Private: filepath.Join(s.cfg.Data, privateFile), Missed: s.marks.lost,
		Threads: s.cfg.Threads, MaxBytes: int64(s.cfg.Limits.Memory), MaxModel: int64(s.cfg.Limits.Model), Remote: upstreams, HashKey: s.cfg.hashKey(),
		Keys: s.keyring.keys, Rules: rules, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop("models", func(context.Context) error { s.models.Close(); return nil })
	if err := s.startUpstreams(upstreams); err != nil {
		return err
	}
	s.explainer, err = explain.New(explain.Config{Engine: "pellucid " + build()})
	s.warnOfPrivate(rules)
	return err
}

// warnOfPrivate says which keys of capture.private make nothing private that is known: a
// name misspelt would be recorded in clear for good.
func (s *server) warnOfPrivate(rules []collector.PrivateRule) {
	live := s.models.Live()
	for _, r := range rules {
		if !slices.ContainsFunc(live, r.Meets) {
			s.log.Warn("a key of capture.private matches no field of any model known yet; names are told by model.feature, capitals as they are", "key", r.Pattern)
		}
	}
}

// upstreamConfigs is what is configured of each upstream, by its name.
func (s *server) upstreamConfigs() (map[string]collector.ModelConfig, error) {
	out := map[string]collector.ModelConfig{}
	for _, u := range s.cfg.Upstreams {
		cfg, err := u.Config()
		if err == nil {
			err = s.cfg.keysNamed(&cfg)
		}
		if err == nil && (cfg.Background != "" || cfg.KeepRows) {
			err = errors.New("background and keep_rows mean nothing for an upstream: its model is not here to be explained")
		}
		if err != nil {
			return nil, usage(fmt.Errorf("upstream %q: %w", u.Name, err))
		}
		out[u.Name] = cfg
	}
	return out, nil
}

// startUpstreams has each upstream described in the background; none of them
// needs to be there.
func (s *server) startUpstreams(configs map[string]collector.ModelConfig) error {
	for _, u := range s.cfg.Upstreams {
		cfg := configs[u.Name]
		s.privateUpstream = s.privateUpstream || cfg.PrivateFeature() != ""
		up, err := proxy.NewUpstream(proxy.UpstreamConfig{
			Name: u.Name, URL: u.URL, Model: u.Model, Version: u.Version, Timeout: time.Duration(u.Timeout), Retries: u.Retries,
			Missing: u.Missing, FeatureNames: cfg.FeatureNames, Config: cfg, Protect: s.models.Protect, Shut: s.models.Shut, Live: s.models.AddRemote, Logger: s.log,
		})
		if err != nil {
			return usage(err)
		}
		s.onStop("upstream", func(context.Context) error { up.Close(); return nil })
		s.upstreams = append(s.upstreams, up)
		up.Touch()
	}
	return nil
}

// startAlerts reads the rules and starts the loop that looks at event time.
func (s *server) startAlerts(context.Context) error {
	var rules []alerts.Rule
	if path := s.cfg.Alerts.Rules; path != "" {
		var err error
		if rules, err = readRules(path); err != nil {
			return usage(err)
		}
	}
	channels := []func(context.Context, []alerts.Alert) error{notify.Log(s.log)}
	for i, w := range s.cfg.Alerts.Webhooks {
		hook, err := notify.Open(notify.Config{
			URL: w.URL, Timeout: time.Duration(w.Timeout), Receiver: fmt.Sprintf("webhook-%d", i+1), ExternalURL: s.url, Logger: s.log,
		})
		if err != nil {
			return usage(err)
		}
		s.webhooks = append(s.webhooks, hook)
		s.onStop("webhook", hook.Close)
		channels = append(channels, hook.Notify)
	}
	m, err := alerts.New(alerts.Config{
		Rules: rules, Source: s.alertSource(), Notify: notify.All(append(slices.Clone(channels), s.recordAlerts)...),
		StatePath: filepath.Join(s.cfg.Data, "alerts.log"),
		URL:       func(a *alerts.Alert) string { return s.url + "/ui/alerts" },
	})
	if err != nil {
		return err
	}
	s.manager = m
	s.warnOfRules(rules)
	s.onStop("alerts", func(context.Context) error { return m.Close() })
	if err := s.startSelfWatch(slices.Clone(channels)); err != nil {
		return err
	}
	s.monitor = startMonitor(s)
	s.onStop("monitor", func(context.Context) error { s.monitor.stop(); return nil })
	return nil
}

func (s *server) startHTTP(context.Context) error {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	p, err := proxy.New(s.proxyConfig())
	if err != nil {
		return err
	}
	s.proxy = p
	s.intake = telemetry.NewIntake(telemetry.IntakeConfig{
		Write: s.writeSpans, Predict: p.ImportSpans, Why: whyLater, Instance: s.telemetry.Instance(), Private: s.onlyKnown,
		KnownTexts: s.cfg.Capture.KnownTexts, KnownAttributes: s.cfg.Capture.KnownAttributes, BrokenOff: s.patterns.BrokenOff,
		Model: func(name string) bool { _, err := s.models.Known(name, ""); return err == nil },
		Meter: s.telemetry.MeterProvider(), Log: s.log,
	})
	if err := s.startEvents(); err != nil {
		return err
	}
	p.Register(e)
	e.Use(unkept, identify)
	e.GET("/metrics", echo.WrapHandler(s.telemetry.MetricsHandler()))
	e.POST("/v1/traces", echo.WrapHandler(s.intake.Handler()))
	s.registerKeys(e)
	if err := s.registerPages(e); err != nil {
		return err
	}
	s.http = &http.Server{
		Handler: e, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), ConnContext: withPeer,
	}
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("serve HTTP", "error", err)
		}
	}()
	s.onStop("http", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			s.log.Warn("requests that did not end in time are cut off", "error", err)
			return s.http.Close()
		}
		return nil
	})
	return nil
}

// startEvents opens the room where halves of predictions wait for each other.
func (s *server) startEvents() error {
	found := s.marks.look(markedEvents)
	dir, err := s.cfg.dir("events")
	if err != nil {
		return err
	}
	s.marks.settle(found)
	s.events, err = events.Open(events.Config{
		Dir: dir, Ours: s.marks.ours(markedEvents), Key: s.cfg.hashKey(), Sync: s.cfg.Capture.Durability == "machine", Record: s.proxy.Import, Label: s.proxy.EventLabels, Names: s.models.Columns, Private: s.models.Policies,
		LogID: s.patterns.Text, Wait: time.Duration(s.cfg.Capture.PairTimeout), MeterProvider: s.telemetry.MeterProvider(), Logger: s.log, Drops: &s.drops, Lost: s.marks.lostRecords,
	})
	if err != nil {
		return err
	}
	s.onStop("events", func(context.Context) error { s.events.Close(); return nil })
	return nil
}

// startGRPC answers what startHTTP has made ready, on a port of its own.
func (s *server) startGRPC(context.Context) error {
	if s.rpcListener == nil {
		return nil
	}
	r, err := rpc.New(rpc.Config{
		Proxy: s.proxy, Register: []rpc.Registration{s.intake.Register}, MaxBody: int(s.cfg.Limits.Body),
		Timeout: time.Duration(s.cfg.Limits.Timeout), MaxCalls: s.cfg.Limits.InFlight, AllowNonLoopback: s.cfg.AllowUnauthenticated,
	})
	if err != nil {
		return err
	}
	s.rpc = r
	go func() {
		if err := r.Serve(s.rpcListener); err != nil {
			s.log.Error("serve gRPC", "error", err)
		}
	}()
	s.onStop("gRPC", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			s.log.Warn("stop gRPC", "error", err)
		}
		return nil
	})
	return nil
}
