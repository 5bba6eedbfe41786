package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/collector/telemetry"
)

// patternConfig is a pattern's name, or {name, action}.
type patternConfig struct {
	Name   string `yaml:"name"`
	Action string `yaml:"action"`
}

// UnmarshalYAML reads either form.
func (p *patternConfig) UnmarshalYAML(unmarshal func(any) error) error {
	if unmarshal(&p.Name) == nil {
		return nil
	}
	type plain patternConfig // without this method
	return unmarshal((*plain)(p))
}

// patternActions are the patterns in use with what happens to what they find.
func (c *config) patternActions() (map[string]capture.PatternAction, error) {
	out := map[string]capture.PatternAction{}
	for _, p := range c.Capture.Patterns {
		if _, twice := out[p.Name]; twice {
			return nil, fmt.Errorf("%q is there twice", p.Name)
		}
		if out[p.Name] = capture.PatternMask; p.Action != "" {
			out[p.Name] = capture.PatternAction(p.Action)
		}
	}
	return out, nil
}

func (c *config) checkPatterns() error {
	use, err := c.patternActions()
	if err != nil {
		return err
	}
	_, err = capture.NewPatterns(use, make([]byte, 32)) // its key is of no matter here
	return err
}

// patterns are those in use, with the secret of hashed fields.
func (c *config) patterns() (*capture.Patterns, error) {
	use, err := c.patternActions()
	if err != nil || len(use) == 0 {
		return nil, err
	}
	key, err := c.hashKey()()
	if err != nil {
		return nil, fmt.Errorf("read the key of capture.patterns: %w", err)
	}
	return capture.NewPatterns(use, key)
}

// cleanSpan takes out of a span what patterns find: those of other programs come with
// whatever they hold.
func cleanSpan(p *capture.Patterns, sp telemetry.Span) telemetry.Span {
	if p == nil {
		return sp
	}
	for _, text := range []*string{&sp.SpanName, &sp.StatusMessage, &sp.TraceState, &sp.ServiceName, &sp.ScopeName, &sp.ScopeVersion} {
		*text = p.Text(*text)
	}
	sp.ResourceAttributes, sp.SpanAttributes = cleanMap(p, sp.ResourceAttributes), cleanMap(p, sp.SpanAttributes)
	events, links := sp.Events, sp.Links
	sp.Events, sp.Links = make([]telemetry.SpanEvent, len(events)), make([]telemetry.SpanLink, len(links))
	for i, e := range events {
		e.Name, e.Attributes = p.Text(e.Name), cleanMap(p, e.Attributes)
		sp.Events[i] = e
	}
	for i, l := range links {
		l.TraceState, l.Attributes = p.Text(l.TraceState), cleanMap(p, l.Attributes)
		sp.Links[i] = l
	}
	return sp
}

// cleanMap copies a map with what patterns find in its keys and values taken out.
func cleanMap(p *capture.Patterns, m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		clean := p.Text(k)
		for _, twice := out[clean]; twice; _, twice = out[clean] {
			clean += "'" // two keys may differ in nothing else
		}
		out[clean] = p.Text(m[k])
	}
	return out
}
