package alerts

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The numbers that SelfRules watch.
const (
	SelfLag         = "lag"          // seconds since the oldest record came that is not stored
	SelfDeadLetters = "dead_letters" // records that the store refuses
	SelfSpoolFill   = "spool_fill"   // share of the spool that is taken
	SelfLosses      = "losses"       // what was taken out of the data folder and nobody has acknowledged
	SelfDropped     = "dropped"      // CloudEvents, and rows of them, that were taken and lately given up
)

// SelfEvery is how often SelfRules are evaluated.
const SelfEvery = 5 * time.Second

// SelfRules are the built-in rules about Pellucid itself. Their time is the clock's,
// not that of events, and they belong to a Manager of their own: they must be
// evaluated when the store, which the others ask, is away.
func SelfRules(lag time.Duration) []Rule {
	rule := func(name, metric string, above float64, severity, summary string) Rule {
		return Rule{
			Name: name, Kind: KindSelf, Metric: metric, Above: &above, Window: SelfEvery, Every: SelfEvery, ForEvaluations: 1,
			Severity: severity, Annotations: map[string]string{"summary": summary},
		}
	}
	return []Rule{
		rule("PellucidLagging", SelfLag, lag.Seconds(), "warning", "records wait for the store: the oldest came {{ value }} seconds ago, the limit is {{ threshold }}"),
		rule("PellucidDeadLetters", SelfDeadLetters, 0, "warning", "{{ value }} records are dead letters: the store refuses what is in them"),
		rule("PellucidSpoolFull", SelfSpoolFill, 0.8, "critical", "the spool is nearly full: {{ value }} of what it may take, the limit is {{ threshold }}"),
		rule("PellucidDataLost", SelfLosses, 0, "critical", "{{ value }} folders, versions or records were gone from the data folder, or others than before: the page of health says which"),
		rule("PellucidEventsDropped", SelfDropped, 0, "warning", "{{ value }} CloudEvents or rows of them were taken and will not be recorded: they fit no version, or their files were damaged or gone"),
	}
}

// checkSelf holds a number about Pellucid itself against the rule.
func (r *Rule) checkSelf(ctx context.Context, src Source) (Signal, error) {
	if src.Self == nil {
		return Signal{}, errors.New("evaluate rule about Pellucid itself: no numbers here")
	}
	v, err := src.Self(ctx, r.Metric)
	if err != nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: %w", r.Name, err)
	}
	var s Signal
	r.judge(&s, r.Metric, v)
	return s, nil
}
