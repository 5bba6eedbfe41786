package proxy

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// Whoever tells of predictions names their features and outputs, and a name may repeat a
// value. Names that the operator did not give, in model.yaml or by a rule, are looked through
// before a version is known by them; afterwards a row's name is taken for the version's that
// it has become.

// withoutValues is a name without what patterns find and these private values.
func (s *Server) withoutValues(private []json.RawMessage) func(name string) string {
	x := collector.NewNameScrubber(private)
	return func(name string) string {
		if s.cfg.Name != nil {
			name = s.cfg.Name(name)
		}
		return x.Long(name)
	}
}

// named is info, by which a version is about to be known, with its names looked through; nil
// where they stay. all are the rows that describe it.
func (s *Server) named(v *collector.ModelVersion, info *engine.Info, all []*collector.Imported) *engine.Info {
	var private []json.RawMessage
	for _, row := range all {
		private = append(private, privateOf(v, row)...)
	}
	clean, changed := s.withoutValues(private), false
	out := *info
	given := func(name string) bool {
		return slices.ContainsFunc(v.Config.Features, func(f collector.FeatureConfig) bool { return f.Name == name })
	}
	specs := func(list []engine.Spec) []engine.Spec {
		kept := make([]engine.Spec, 0, len(list))
		for _, spec := range list {
			if !given(spec.Name) {
				was := spec.Name
				spec.Name = clean(was)
				changed = changed || spec.Name != was
			}
			if specOf(kept, spec.Name) == nil {
				kept = append(kept, spec)
			}
		}
		return kept
	}
	out.Inputs, out.Outputs = specs(info.Inputs), specs(info.Outputs)
	if !changed {
		return nil
	}
	out.Features = featuresNamed(out.Inputs)
	return &out
}

// rename gives a row's fields the names that its version has of them. One that would be
// another's is left out.
func (s *Server) rename(ctx context.Context, v *collector.ModelVersion, row *collector.Imported) {
	features := namesOf(v.Info.Features, func(f *engine.Feature) string { return f.Name })
	outputs := namesOf(v.Info.Outputs, func(o *engine.Spec) string { return o.Name })
	newFeatures, newOutputs := unknown(row.Features, features), unknown(row.Outputs, outputs)
	if len(newFeatures)+len(newOutputs) == 0 {
		return
	}
	clean := s.withoutValues(privateOf(v, row))
	var n, m int
	row.Features, n = renamed(row.Features, newFeatures, features, clean)
	row.Outputs, m = renamed(row.Outputs, newOutputs, outputs, clean)
	if n+m > 0 {
		s.metrics.importNames.Add(ctx, int64(n+m))
	}
}

func namesOf[T any](list []T, name func(*T) string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = name(&list[i])
	}
	return out
}

// unknown are the names of values, in their order, that are none of the known ones.
func unknown(values map[string]json.RawMessage, known []string) []string {
	if len(values) == 0 {
		return nil
	}
	names := make(map[string]bool, len(known))
	for _, name := range known {
		names[name] = true
	}
	var out []string
	for name := range values {
		if !names[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// renamed are the values with others of them, whose names are not known, under the known ones
// that these stand for, or what clean makes of theirs, and how many names that changed.
func renamed(values map[string]json.RawMessage, others, known []string, clean func(string) string) (map[string]json.RawMessage, int) {
	if len(others) == 0 {
		return values, 0
	}
	out, n := maps.Clone(values), 0
	for _, name := range others {
		to := clean(name)
		if i := slices.IndexFunc(known, func(k string) bool { return to != k && stands(k, to) }); i >= 0 && !slices.Contains(known, to) {
			to = known[i]
		}
		if to == name {
			continue
		}
		n++
		delete(out, name)
		if _, taken := out[to]; !taken {
			out[to] = values[name]
		}
	}
	return out, n
}

// stands reports whether a known name, in which values are masked, stands for another.
func stands(known, name string) bool {
	parts := strings.Split(known, collector.Masked)
	if len(parts) == 1 || !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}
