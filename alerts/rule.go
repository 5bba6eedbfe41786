// Package alerts decides: it holds rules against drift, performance, errors and
// latency over windows of event time, and keeps each rule's state.
//
// It owns the rule file's schema, the state machine and its local log. It reads
// no clock, store or network: times come from the caller, numbers through the
// func fields of Config, and messages leave through Config.Notify. The same rules
// over the same numbers at the same times give the same alerts.
//
// # Rules
//
//	rules:
//	  - name: flights-drift          # unique
//	    model: flights
//	    version: "2"                 # optional; default: the version that answers
//	    kind: drift                  # drift | performance | errors | latency
//	    features: [origin, dest]     # drift; or all (the default)
//	    test: psi                    # drift; any test of engine/stats
//	    k_of_n: 2                    # drift; how many features must drift (1)
//	    metric: auc                  # performance: any metric of engine/stats;
//	                                 # latency: p50, p90, p95 or p99, in milliseconds
//	    above: 0.2                   # threshold; of a drift test: the effect that matters
//	    below: 0.7                   # performance only
//	    window: 7d                   # of event time, ending at the evaluation
//	    delay: 30d                   # performance; it ends that long before (0), for
//	                                 # labels that come late
//	    every: 1d                    # evaluations are at whole multiples since 1970
//	    for: 2                       # evaluations in a row, or a duration (1)
//	    min_rows: 500                # fewer are no_data
//	    severity: warning
//	    labels: {team: risk}
//	    annotations: {summary: "{{ features }} of {{ model }} drifted"}
//
// A window is judged once. A performance rule without a delay judges it when its
// predictions are there, by the labels they have by then; those that come later count
// for nothing, so the delay is how long most labels take.
//
// A rule that is edited under its name is another: it is judged anew, and the alert of
// the earlier one goes on or is resolved by what it finds.
//
// One rule is one alert. It is inactive, pending (the condition holds, not yet
// for long enough), firing, or resolved (it was firing and no longer holds). No
// data and errors change nothing: they neither fire nor resolve an alert.
//
// In labels and annotations {{ name }} stands for rule, model, version, kind,
// severity, test, metric, value, threshold, features, rows, window, from or to.
package alerts

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector/strictyaml"
	"github.com/pellucid/pellucid/engine/stats"
)

// Kind is what a rule watches.
type Kind string

// The kinds of rule.
const (
	KindDrift       Kind = "drift"
	KindPerformance Kind = "performance"
	KindErrors      Kind = "errors"
	KindLatency     Kind = "latency"
	// KindSelf watches Pellucid itself; SelfRules makes such rules, a file cannot.
	KindSelf Kind = "self"
)

// Limits of a rule file.
const (
	maxRules  = 10_000
	maxWindow = 366 * 24 * time.Hour
)

// Rule is one checked rule.
type Rule struct {
	Name, Model, Version string
	Kind                 Kind
	// Features that a drift rule watches; nil means all.
	Features []string
	Test     stats.Test
	// AtLeast is how many features must drift.
	AtLeast int
	Metric  string
	// Above and Below are thresholds; nil where not given.
	Above, Below  *float64
	Window, Every time.Duration
	// Delay is how long before its evaluation a window ends. Left out of a definition
	// where there is none, which is then what it was before there were delays.
	Delay time.Duration `json:",omitzero"`
	// ForEvaluations and ForDuration say how long the condition must hold.
	ForEvaluations int
	ForDuration    time.Duration
	MinRows        int
	Severity       string
	Labels         map[string]string
	Annotations    map[string]string
}

// definition is a digest of all that decides when a rule fires and what its alert is: not
// of its annotations, which only describe it.
func (r *Rule) definition() string {
	decides := *r
	decides.Annotations = nil
	b, err := json.Marshal(decides)
	if err != nil {
		panic("alerts: a rule cannot be encoded: " + err.Error()) // it has names, numbers and times only
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// steps is how many evaluations in a row a rule needs to fire, limit at most.
func (r *Rule) steps(limit int) int {
	held := int(min((r.ForDuration+r.Every-1)/r.Every, time.Duration(limit))) + 1
	return min(max(r.ForEvaluations, held, 1), max(limit, 1))
}

// Condition says in words what makes a rule fire.
func (r *Rule) Condition() string {
	limit := ""
	switch {
	case r.Above != nil:
		limit = " above " + number(*r.Above)
	case r.Below != nil:
		limit = " below " + number(*r.Below)
	case r.Kind == KindDrift:
		limit = " above its own threshold"
	}
	switch r.Kind {
	case KindDrift:
		of := "all features"
		if r.Features != nil {
			of = strings.Join(r.Features, ", ")
		}
		if r.AtLeast > 1 || r.Features == nil || len(r.Features) > 1 {
			of = fmt.Sprintf("at least %d of %s", r.AtLeast, of)
		}
		return string(r.Test) + limit + " for " + of
	case KindErrors:
		return "share of failed requests" + limit
	case KindLatency:
		return r.Metric + limit + " ms"
	}
	return r.Metric + limit
}

// Timing says in words over what window, how often and for how long.
func (r *Rule) Timing() string {
	if r.Kind == KindSelf {
		return "every " + stats.FormatDuration(r.Every)
	}
	s := "over " + stats.FormatDuration(r.Window)
	if r.Delay > 0 {
		s += " that ended " + stats.FormatDuration(r.Delay) + " before"
	}
	s += ", every " + stats.FormatDuration(r.Every)
	switch {
	case r.ForDuration > 0:
		s += ", for " + stats.FormatDuration(r.ForDuration)
	case r.ForEvaluations > 1:
		s += fmt.Sprintf(", for %d evaluations in a row", r.ForEvaluations)
	}
	return fmt.Sprintf("%s, of at least %d rows", s, r.MinRows)
}

// file is the YAML form.
type file struct {
	Rules []ruleFile `yaml:"rules"`
}

type ruleFile struct {
	Name        string            `yaml:"name"`
	Model       string            `yaml:"model"`
	Version     string            `yaml:"version"`
	Kind        string            `yaml:"kind"`
	Features    featureList       `yaml:"features"`
	Test        string            `yaml:"test"`
	Metric      string            `yaml:"metric"`
	Above       *float64          `yaml:"above"`
	Below       *float64          `yaml:"below"`
	Window      string            `yaml:"window"`
	Every       string            `yaml:"every"`
	Delay       string            `yaml:"delay"`
	For         string            `yaml:"for"`
	MinRows     int               `yaml:"min_rows"`
	KOfN        int               `yaml:"k_of_n"`
	Severity    string            `yaml:"severity"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// featureList is a list of names, or the word all.
type featureList []string

// UnmarshalYAML reads either form.
func (f *featureList) UnmarshalYAML(unmarshal func(any) error) error {
	var list []string
	if err := unmarshal(&list); err == nil {
		if len(list) == 0 {
			return errors.New("features: an empty list watches nothing; leave it out for all")
		}
		*f = list
		return nil
	}
	var word string
	if err := unmarshal(&word); err != nil || word != "all" {
		return errors.New("features: want a list of names, or all")
	}
	return nil
}

// ParseRules reads and checks a rule file; name is for errors.
func ParseRules(data []byte, name string) ([]Rule, error) {
	var f file
	if err := strictyaml.Decode(data, name, &f); err != nil {
		return nil, err
	}
	if len(f.Rules) > maxRules {
		return nil, fmt.Errorf("read %s: %d rules, at most %d", name, len(f.Rules), maxRules)
	}
	seen := map[string]bool{}
	rules := make([]Rule, 0, len(f.Rules))
	for i := range f.Rules {
		r, err := f.Rules[i].rule()
		if err == nil && seen[r.Name] {
			err = errors.New("the name is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: rule %q: %w", name, cmp.Or(f.Rules[i].Name, "#"+strconv.Itoa(i+1)), err)
		}
		seen[r.Name] = true
		rules = append(rules, r)
	}
	return rules, nil
}

func (f *ruleFile) rule() (Rule, error) {
	r := Rule{
		Name: f.Name, Model: f.Model, Version: f.Version, Kind: Kind(f.Kind),
		Features: f.Features, Test: stats.Test(f.Test), AtLeast: f.KOfN, Metric: f.Metric,
		Above: f.Above, Below: f.Below, MinRows: f.MinRows, Severity: cmp.Or(f.Severity, "warning"),
		Labels: f.Labels, Annotations: f.Annotations,
	}
	if r.Name == "" || r.Model == "" {
		return r, errors.New("name and model are needed")
	}
	if r.MinRows < 0 {
		return r, errors.New("min_rows is negative")
	}
	r.MinRows = cmp.Or(r.MinRows, stats.DefaultMinRows)
	if err := r.setTimes(f); err != nil {
		return r, err
	}
	for _, v := range []*float64{r.Above, r.Below} {
		if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
			return r, errors.New("above and below must be finite")
		}
	}
	if err := r.checkKind(); err != nil {
		return r, err
	}
	return r, r.checkTexts()
}

func (r *Rule) setTimes(f *ruleFile) error {
	var err error
	if r.Window, err = stats.ParseDuration(cmp.Or(f.Window, "1d")); err != nil {
		return fmt.Errorf("window: %w", err)
	}
	if r.Every, err = stats.ParseDuration(cmp.Or(f.Every, "1h")); err != nil {
		return fmt.Errorf("every: %w", err)
	}
	if r.Window > maxWindow || r.Every > maxWindow {
		return errors.New("window and every are at most 366 days")
	}
	if r.Every < time.Second || r.Window < time.Second {
		return errors.New("window and every are at least a second")
	}
	if f.Delay != "" && f.Delay != "0" {
		if r.Delay, err = stats.ParseDuration(f.Delay); err != nil {
			return fmt.Errorf("delay: %w", err)
		}
		if r.Delay > maxWindow {
			return errors.New("delay is at most 366 days")
		}
	}
	r.ForEvaluations = 1
	if f.For == "" {
		return nil
	}
	if n, err := strconv.Atoi(f.For); err == nil {
		if n < 1 || n > 1_000_000 {
			return errors.New("for: want at least one evaluation")
		}
		r.ForEvaluations = n
		return nil
	}
	if r.ForDuration, err = stats.ParseDuration(f.For); err != nil {
		return fmt.Errorf("for: want a number of evaluations or a duration: %w", err)
	}
	return nil
}

var latencyMetrics = []string{"p50", "p90", "p95", "p99"}

func (r *Rule) checkKind() error {
	if r.Kind != KindDrift && (r.Features != nil || r.Test != "" || r.AtLeast != 0) {
		return errors.New("features, test and k_of_n belong to kind drift")
	}
	if r.Kind != KindPerformance && r.Below != nil {
		return errors.New("below belongs to kind performance")
	}
	if r.Kind != KindPerformance && r.Delay != 0 {
		return errors.New("delay belongs to kind performance: the others wait for no labels")
	}
	switch r.Kind {
	case KindDrift:
		return r.checkDrift()
	case KindPerformance:
		if !slices.Contains(stats.Metrics, stats.Metric(r.Metric)) {
			return fmt.Errorf("metric %q is none of %v", r.Metric, stats.Metrics)
		}
		if (r.Above == nil) == (r.Below == nil) {
			return errors.New("one of above and below is needed")
		}
		return nil
	case KindErrors:
		if r.Metric != "" {
			return errors.New("kind errors has no metric: it watches the share of failed requests")
		}
	case KindLatency:
		if r.Metric = cmp.Or(r.Metric, "p99"); !slices.Contains(latencyMetrics, r.Metric) {
			return fmt.Errorf("metric %q is none of %v", r.Metric, latencyMetrics)
		}
	default:
		return fmt.Errorf("kind %q is none of drift, performance, errors, latency", r.Kind)
	}
	if r.Above == nil {
		return errors.New("above is needed")
	}
	return nil
}

func (r *Rule) checkDrift() error {
	r.Test = cmp.Or(r.Test, stats.PSI)
	if !slices.Contains(stats.Tests, r.Test) {
		return fmt.Errorf("test %q is none of %v", r.Test, stats.Tests)
	}
	if r.Metric != "" {
		return errors.New("kind drift has a test, not a metric")
	}
	if r.Above != nil && *r.Above <= 0 {
		return errors.New("above must be larger than 0")
	}
	r.AtLeast = cmp.Or(r.AtLeast, 1)
	if r.AtLeast < 0 || r.Features != nil && r.AtLeast > len(r.Features) {
		return fmt.Errorf("k_of_n: %d of %d features", r.AtLeast, len(r.Features))
	}
	for i, f := range r.Features {
		if f == "" || slices.Contains(r.Features[:i], f) {
			return fmt.Errorf("feature %q is empty or there twice", f)
		}
	}
	return nil
}

var (
	labelName   = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	placeholder = regexp.MustCompile(`\{\{\s*([a-zA-Z_]*)\s*\}\}`)
)

// ownLabels are set by us and not for a rule to change.
var ownLabels = []string{"alertname", "model", "version", "kind", "severity"}

// volatile placeholders change from one evaluation to the next; in a label they
// would change the alert's identity.
var volatile = []string{"value", "threshold", "features", "rows", "from", "to", "version"}

var placeholders = append([]string{"rule", "model", "kind", "severity", "test", "metric", "window"}, volatile...)

func (r *Rule) checkTexts() error {
	for k, v := range r.Labels {
		if !labelName.MatchString(k) || slices.Contains(ownLabels, k) {
			return fmt.Errorf("label %q is not a label name, or one we set", k)
		}
		for _, m := range placeholder.FindAllStringSubmatch(v, -1) {
			if slices.Contains(volatile, m[1]) {
				return fmt.Errorf("label %q: {{ %s }} changes, which would make it another alert: use an annotation", k, m[1])
			}
		}
	}
	for _, texts := range []map[string]string{r.Labels, r.Annotations} {
		for k, v := range texts {
			if !labelName.MatchString(k) {
				return fmt.Errorf("annotation %q is not a name", k)
			}
			for _, m := range placeholder.FindAllStringSubmatch(v, -1) {
				if !slices.Contains(placeholders, m[1]) {
					return fmt.Errorf("%s: unknown {{ %s }}: there are %v", k, m[1], placeholders)
				}
			}
		}
	}
	return nil
}
