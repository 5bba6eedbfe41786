package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/collector/strictyaml"
	"github.com/pellucid/pellucid/engine/stats"
)

// config is the one configuration tree: the file, then the environment, then
// flags, each over the one before. Every field's zero value means its default.
type config struct {
	HTTP string `yaml:"http"`
	// GRPC is empty where gRPC is not answered.
	GRPC    string `yaml:"grpc"`
	Models  string `yaml:"models"`
	Data    string `yaml:"data"`
	Threads int    `yaml:"threads"`
	// ClickHouse is the address of a server; empty means the embedded engine.
	ClickHouse string `yaml:"clickhouse"`
	// Cluster is the server's cluster whose shards hold the rows; empty means the
	// server alone.
	Cluster string `yaml:"clickhouse_cluster"`
	// Engine is a libchdb.so or a clickhouse binary for the embedded engine.
	Engine       string   `yaml:"engine"`
	EngineMemory byteSize `yaml:"engine_memory"`
	// AllowUnauthenticated lets data and pages be reached from elsewhere while
	// there is no authentication.
	AllowUnauthenticated bool `yaml:"allow_unauthenticated"`

	Limits    limitsConfig     `yaml:"limits"`
	Capture   captureConfig    `yaml:"capture"`
	Telemetry telemetryConfig  `yaml:"telemetry"`
	Alerts    alertsConfig     `yaml:"alerts"`
	Audit     auditConfig      `yaml:"audit"`
	Retention retentionConfig  `yaml:"retention"`
	Upstreams []upstreamConfig `yaml:"upstreams"`
}

type limitsConfig struct {
	Body     byteSize `yaml:"body"`
	InFlight int      `yaml:"in_flight"`
	Timeout  duration `yaml:"timeout"`
	Memory   byteSize `yaml:"memory"`
	Model    byteSize `yaml:"model"`
}

type captureConfig struct {
	Durability string   `yaml:"durability"`
	OnFull     string   `yaml:"on_full"`
	SpoolBytes byteSize `yaml:"spool_bytes"`
	DeadBytes  byteSize `yaml:"dead_bytes"`
	Body       byteSize `yaml:"body"`
	KeyFile    string   `yaml:"key_file"`
	// PairTimeout is how long half a prediction out of CloudEvents waits.
	PairTimeout duration `yaml:"pair_timeout"`
	// Sample says which predictions keep their features.
	Sample []sampleConfig `yaml:"sample"`
	// Key is where the key-encryption key of sealed fields comes from.
	Key keyConfig `yaml:"key"`
	// Private makes features of any model private, by "model.feature".
	Private map[string]string `yaml:"private"`
	// Texts says what is kept of other programs' own words where fields are private.
	Texts           string   `yaml:"texts"`
	KnownTexts      []string `yaml:"known_texts"`
	KnownAttributes []string `yaml:"known_attributes"`
	// Patterns find what is private by its form, wherever it is.
	Patterns []patternConfig `yaml:"patterns"`
}

// What is kept of other programs' own words where fields are private: what is known to
// repeat none, or what a search for their values leaves.
const (
	textsKnown   = "known"
	textsCleaned = "cleaned"
)

type sampleConfig struct {
	Model string   `yaml:"model"`
	Share *float64 `yaml:"share"`
	// KeepOutliers is true unless it is said.
	KeepOutliers *bool    `yaml:"keep_outliers"`
	KeepSlower   duration `yaml:"keep_slower"`
}

// rules are the sample rules as capture takes them.
func (c *captureConfig) rules() []capture.SampleRule {
	out := make([]capture.SampleRule, len(c.Sample))
	for i, r := range c.Sample {
		out[i] = capture.SampleRule{
			Model: r.Model, Share: *r.Share, KeepOutliers: r.KeepOutliers == nil || *r.KeepOutliers, KeepSlower: time.Duration(r.KeepSlower),
		}
	}
	return out
}

type telemetryConfig struct {
	OTLP   string   `yaml:"otlp"`
	Sample *float64 `yaml:"sample"`
	// KeepSlower keeps the spans of slower requests, sampled or not.
	KeepSlower duration `yaml:"keep_slower"`
	// KeepRefused is how many refused requests of one status have a span a second.
	KeepRefused int `yaml:"keep_refused"`

	retryFor time.Duration // of spans sampled by chance; tests set it
}

type alertsConfig struct {
	Rules    string          `yaml:"rules"`
	Lag      duration        `yaml:"lag"`
	Webhooks []webhookConfig `yaml:"webhooks"`
}

type webhookConfig struct {
	URL     string   `yaml:"url"`
	Timeout duration `yaml:"timeout"`
}

type auditConfig struct {
	KeyFile  string   `yaml:"key_file"`
	HeadFile string   `yaml:"head_file"`
	Bytes    byteSize `yaml:"bytes"`
}

type retentionConfig struct {
	Default keepFor            `yaml:"default"`
	Models  map[string]keepFor `yaml:"models"`
	Tenants map[string]keepFor `yaml:"tenants"`
	Traces  keepFor            `yaml:"traces"`
}

type upstreamConfig struct {
	Name    string   `yaml:"name"`
	URL     string   `yaml:"url"`
	Model   string   `yaml:"model"`
	Version string   `yaml:"version"`
	Timeout duration `yaml:"timeout"`
	Retries int      `yaml:"retries"`
	// Missing says that the model takes null for a missing value.
	Missing bool `yaml:"missing"`
	// The protocol has no words for the rest, so it is said here as in model.yaml.
	repository.ModelYAML `yaml:",inline"`
}

// exampleConfig is what --print-config shows; a test decodes it.
const exampleConfig = `# Pellucid's configuration. Every key may be left out; these are the defaults.
# Flags and PELLUCID_* environment variables are put over this file.
http: 127.0.0.1:8080          # pages, predictions, metrics
grpc: 127.0.0.1:8081          # predictions, records and OTLP by gRPC; "" answers none
models: models                # models/<name>/<version>/model.{onnx,json,ubj,txt}
data: pellucid-data           # spool, embedded ClickHouse, models by digest
threads: 0                    # cores one prediction may use; 0 means 1
clickhouse: ""                # clickhouse://user:pass@host:9000/db; empty starts the embedded engine
clickhouse_cluster: ""        # its cluster, as in system.clusters: replicated tables on each shard, Distributed over them
engine: ""                    # libchdb.so or a clickhouse binary >= 26.3; empty finds or fetches one
engine_memory: 1GiB           # cap of the embedded engine
allow_unauthenticated: false  # true lets other machines in while there is no authentication

limits:
  body: 64MiB                 # largest request
  in_flight: 1024             # more are answered 503 with Retry-After
  timeout: 30s                # of one prediction, from the first byte of its body
  memory: 1GiB                # of one model run
  model: 8GiB                 # that one model holds: its weights, and what is laid out of them for kernels

capture:
  durability: process         # process | machine | none: what an answer waits for
  on_full: reject             # reject (503) | serve (counted loss), when the spool is full
  spool_bytes: 4GiB
  dead_bytes: 256MiB          # records that the store refuses; beyond that the drain waits
  body: 1MiB                  # larger rows are stored without features, and say so
  pair_timeout: 5m            # how long a logged request waits for its response (CloudEvents)
  key_file: ""                # secret of fields that are private: hash; empty makes one in the data folder
  key:                        # the key-encryption key of fields that are private: seal, 32 bytes in hex or base64:
    file: ""                  # out of a file,
    env: ""                   # or an environment variable,
    command: []               # or printed by a command, as in [/usr/local/bin/kms, decrypt, kek]; no shell reads it
  private: {}                 # features that are private in any model, as in {"*.email": hash, "loans.income": seal}
  texts: known                # what other programs say in their own words (names, messages and attributes of spans, errors of imported
                              # predictions) where a field of a model is private: known | cleaned; see Private data
  known_texts: []             # names and messages that repeat nothing private, as in [predict, load features]
  known_attributes: []        # attributes of spans that never do, as in [http.route, exception.type]
  patterns: []                # what is taken out of any text: card, email, iban, phone, token; or {name: email, action: hash}
  sample: []                  # which predictions keep their features; all where no rule says otherwise:
# - model: flights            # or "*"
#   share: 0.1                # kept by chance; the rest keeps outputs, score and bins, so drift stays exact
#   keep_outliers: true       # all features of rows outside the reference
#   keep_slower: 1s           # and of slow requests

telemetry:
  otlp: ""                    # an OTLP endpoint takes the spans instead of ClickHouse, and metrics and log lines
  sample: 0.05                # share of traces kept when the caller did not decide; failures and explanations always are,
  keep_slower: 1s             # and requests that take longer
  keep_refused: 10            # and of refused ones (4xx) so many a second for each status

alerts:
  rules: ""                   # a rules file; see README
  lag: 5m                     # PellucidLagging fires when a record has waited that long for the store
  webhooks: []                # - {url: "http://127.0.0.1:9093/hook", timeout: 10s}

audit:
  key_file: ""                # signs the audit log; empty makes one in the data folder, better is elsewhere
  head_file: ""               # a file elsewhere that the log's head is added to, every ten minutes
  bytes: 1GiB                 # the oldest entries go beyond that

retention:                    # how long rows are kept from when they were received; whole days
  default: none               # 90d: of every model and tenant that is not named
  models: {}                  # {loans: 30d, audited: none}
  tenants: {}                 # {acme: 30d}; where a model's and a tenant's time both apply, the shorter holds
  traces: none                # of spans

upstreams: []                 # models that another Open Inference server answers:
# - name: risk                # here; model: its name there, if another
#   url: http://127.0.0.1:9000
#   timeout: 30s              # of a prediction, all attempts together
#   retries: 0                # asked again where it is busy, failing as a gateway or cannot be reached
#   missing: true             # it takes null for a missing value
#   feature_names: [age, income]
#   task: binary              # this and what follows as in model.yaml
#   features: [{name: income, private: drop}]
#   reference: reference.parquet
`

func defaults() config {
	sample := 0.05
	return config{
		HTTP: "127.0.0.1:8080", GRPC: "127.0.0.1:8081", Models: "models", Data: "pellucid-data", EngineMemory: 1 << 30,
		Limits: limitsConfig{Body: 64 << 20, InFlight: 1024, Timeout: duration(30 * time.Second), Memory: 1 << 30, Model: 8 << 30},
		Capture: captureConfig{
			Durability: "process", OnFull: "reject", SpoolBytes: 4 << 30, DeadBytes: 256 << 20, Body: 1 << 20, PairTimeout: duration(5 * time.Minute),
			Texts: textsKnown, KnownTexts: []string{}, KnownAttributes: []string{},
		},
		Telemetry: telemetryConfig{Sample: &sample, KeepSlower: duration(time.Second), KeepRefused: 10},
		Alerts:    alertsConfig{Lag: duration(5 * time.Minute)},
		Audit:     auditConfig{Bytes: 1 << 30},
		Retention: retentionConfig{Models: map[string]keepFor{}, Tenants: map[string]keepFor{}},
	}
}

// serveFlags are the flags that stand for a key of the file; their environment
// variable is PELLUCID_ and the name in capitals with _ for -.
func (c *config) flags(fs *pflag.FlagSet) {
	d := defaults()
	fs.String("config", "", "configuration file (YAML)")
	fs.String("http", d.HTTP, "address of pages, predictions and metrics")
	fs.String("grpc", d.GRPC, "address of gRPC; empty for none")
	fs.String("models", d.Models, "folder of models")
	fs.String("data", d.Data, "folder of everything Pellucid keeps")
	fs.String("clickhouse", "", "ClickHouse server instead of the embedded engine (clickhouse://user:pass@host:9000/db)")
	fs.String("engine", "", "libchdb.so or clickhouse binary (>= 26.3) for the embedded engine")
	fs.Int("threads", 0, "cores one prediction may use (0: 1)")
	fs.String("rules", "", "alert rules file")
	fs.Bool("allow-unauthenticated", false, "let other machines in while there is no authentication")
}

// loadConfig reads the file that --config (or PELLUCID_CONFIG) names, then the
// environment, then the flags that were given.
func loadConfig(fs *pflag.FlagSet, getenv func(string) string) (config, error) {
	c := defaults()
	path, _ := fs.GetString("config")
	if path == "" {
		path = getenv("PELLUCID_CONFIG")
	}
	var data []byte
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return c, usage(fmt.Errorf("read the configuration: %w", err))
		}
		if err := strictyaml.Decode(data, path, &c); err != nil {
			return c, usage(err)
		}
	}
	var err error
	given := map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) {
		value := getenv("PELLUCID_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		if f.Changed {
			value = f.Value.String()
		}
		if (value != "" || f.Changed) && err == nil {
			err = c.set(f.Name, value)
			given[f.Name] = true
		}
	})
	if err != nil {
		return c, usage(err)
	}
	err = c.validate()
	var wrong badValue
	if errors.As(err, &wrong) && !given[wrong.key] {
		if line := strictyaml.Line(data, strings.Split(wrong.key, ".")...); line > 0 {
			err = usage(fmt.Errorf("read %s: line %d: %w", path, line, wrong))
		}
	}
	return c, err
}

func (c *config) set(name, value string) (err error) {
	switch name {
	case "http":
		c.HTTP = value
	case "grpc":
		c.GRPC = value
	case "models":
		c.Models = value
	case "data":
		c.Data = value
	case "clickhouse":
		c.ClickHouse = value
	case "engine":
		c.Engine = value
	case "rules":
		c.Alerts.Rules = value
	case "threads":
		c.Threads, err = strconv.Atoi(value)
	case "allow-unauthenticated":
		c.AllowUnauthenticated, err = strconv.ParseBool(value)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", name, value, errors.Unwrap(err))
	}
	return nil
}

// The least that the parts concerned can work with.
const (
	leastSpool  = 64 << 10
	leastEngine = 150 << 20
)

// badValue is a value of the configuration that cannot be meant, by its key.
type badValue struct {
	key string
	error
}

func bad(key, format string, args ...any) error {
	return badValue{key, fmt.Errorf(key+" "+format, args...)}
}

func (c *config) validate() error {
	for _, check := range []func() error{c.validateAddress, c.validateLimits, c.validateCapture, c.validateStore} {
		if err := check(); err != nil {
			return usage(err)
		}
	}
	return nil
}

func (c *config) validateAddress() error {
	if err := c.validateListener("http", c.HTTP); err != nil || c.GRPC == "" {
		return err
	}
	return c.validateListener("grpc", c.GRPC)
}

func (c *config) validateListener(key, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return bad(key, "%q is not host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 64); err != nil || n > math.MaxUint16 {
		return bad(key, "%q has no port between 0 and 65535", address)
	}
	if !loopback(host) && !c.AllowUnauthenticated {
		return bad(key, "%q can be reached from other machines and there is no authentication: bind to 127.0.0.1, or say --allow-unauthenticated", address)
	}
	return nil
}

func (c *config) validateLimits() error {
	switch s := c.Telemetry.Sample; {
	case c.Threads < 0:
		return bad("threads", "%d is negative", c.Threads)
	case c.Limits.InFlight < 0:
		return bad("limits.in_flight", "%d is negative", c.Limits.InFlight)
	case c.Telemetry.KeepSlower < 0:
		return bad("telemetry.keep_slower", "is negative")
	case c.Telemetry.KeepRefused < 0:
		return bad("telemetry.keep_refused", "%d is negative", c.Telemetry.KeepRefused)
	case s != nil && !(*s >= 0 && *s <= 1):
		return bad("telemetry.sample", "%g is not between 0 and 1", *s)
	}
	return nil
}

func (c *config) validateCapture() error {
	for i, r := range c.Capture.Sample {
		key := fmt.Sprintf("capture.sample[%d]", i)
		switch {
		case r.Model == "":
			return bad(key, "it names no model (\"*\" means every one)")
		case r.Share == nil:
			return bad(key, "it says no share of model %q to keep", r.Model)
		case !(*r.Share >= 0 && *r.Share <= 1):
			return bad(key, "share %g is not between 0 and 1", *r.Share)
		case r.KeepSlower < 0:
			return bad(key, "keep_slower is negative")
		case slices.ContainsFunc(c.Capture.Sample[:i], func(o sampleConfig) bool { return o.Model == r.Model }):
			return bad(key, "model %q has a rule already", r.Model)
		}
	}
	switch {
	case !slices.Contains([]string{"process", "machine", "none"}, c.Capture.Durability):
		return bad("capture.durability", "%q is not process, machine or none", c.Capture.Durability)
	case !slices.Contains([]string{"reject", "serve"}, c.Capture.OnFull):
		return bad("capture.on_full", "%q is not reject or serve", c.Capture.OnFull)
	case c.Capture.Texts != textsKnown && c.Capture.Texts != textsCleaned:
		return bad("capture.texts", "%q is not known or cleaned", c.Capture.Texts)
	case c.Capture.SpoolBytes > 0 && c.Capture.SpoolBytes < leastSpool:
		return bad("capture.spool_bytes", "is %d, and the spool needs at least 64 KiB", c.Capture.SpoolBytes)
	case c.Audit.Bytes > 0 && c.Audit.Bytes < audit.MinBytes:
		return bad("audit.bytes", "is %d, and the log needs at least 4 MiB", c.Audit.Bytes)
	}
	if err := c.Capture.Key.source().Validate(); err != nil {
		return bad("capture.key", "%w", err)
	}
	if _, err := collector.ParsePrivateRules(c.Capture.Private); err != nil {
		return bad("capture.private", "%w", err)
	}
	if err := c.checkPatterns(); err != nil {
		return bad("capture.patterns", "%w", err)
	}
	return nil
}

// validateStore checks where records and spans go. Addresses may hold a password
// and are not repeated.
func (c *config) validateStore() error {
	if c.EngineMemory > 0 && c.EngineMemory < leastEngine {
		return bad("engine_memory", "is %d, and the engine needs at least 150 MiB", c.EngineMemory)
	}
	if c.Cluster != "" && c.ClickHouse == "" {
		return bad("clickhouse_cluster", "needs the address of one of its servers in clickhouse")
	}
	if dsn := c.ClickHouse; dsn != "" {
		scheme, rest, ok := strings.Cut(dsn, "://")
		if !ok || rest == "" || rest[0] == '/' || scheme == "http" || scheme == "https" {
			return bad("clickhouse", "is not an address of the form clickhouse://user:password@host:9000/database")
		}
	}
	if !otlpAddress(c.Telemetry.OTLP) {
		return bad("telemetry.otlp", "is neither an http, https, grpc or grpcs address nor host:port")
	}
	return nil
}

func otlpAddress(s string) bool {
	if s == "" {
		return true
	}
	if !strings.Contains(s, "://") {
		host, port, err := net.SplitHostPort(s)
		return err == nil && host != "" && port != ""
	}
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// dir makes a folder below the data folder and returns its path.
func (c *config) dir(name string) (string, error) {
	p := filepath.Join(c.Data, name)
	if err := os.MkdirAll(p, 0o700); err != nil {
		return "", fmt.Errorf("make the data folder: %w", err)
	}
	return filepath.Abs(p)
}

// byteSize is a size in the file: a number, or one with KiB, MiB, GiB.
type byteSize int64

// UnmarshalYAML reads the size.
func (b *byteSize) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	n, unit := strings.TrimSpace(s), int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if rest, ok := strings.CutSuffix(n, suffix); ok {
			n, unit = strings.TrimSpace(rest), u
		}
	}
	v, err := strconv.ParseInt(n, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return strictyaml.At(unmarshal, fmt.Errorf("size %q is not a number of bytes, KiB, MiB, GiB or TiB", s))
	}
	*b = byteSize(v * unit)
	return nil
}

// duration is a time in the file: 30s, 5m.
type duration time.Duration

// UnmarshalYAML reads the time.
func (d *duration) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return strictyaml.At(unmarshal, fmt.Errorf("time %q is not one such as 30s or 5m", s))
	}
	*d = duration(v)
	return nil
}

// keepFor is how long something is kept: none (for ever), or whole days.
type keepFor time.Duration

// UnmarshalYAML reads the time.
func (k *keepFor) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	if s == "none" {
		*k = 0
		return nil
	}
	d, err := stats.ParseDuration(s)
	if err != nil || d%(24*time.Hour) != 0 {
		return strictyaml.At(unmarshal, fmt.Errorf("time %q is neither none nor whole days such as 30d or 8w", s))
	}
	*k = keepFor(d)
	return nil
}

// String is the time as the file has it.
func (k keepFor) String() string {
	if k == 0 {
		return "none"
	}
	return stats.FormatDuration(time.Duration(k))
}

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lines joins what a command prints, for tests and pipes alike.
func lines(parts ...string) string {
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString(p)
		b.WriteByte('\n')
	}
	return b.String()
}
