package collector

import (
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
)

// WithoutInputs takes out of the texts of outputs what they repeat of private features: a
// model that writes often says again what it was asked. The names of classes stay.
func WithoutInputs(v *ModelVersion, in engine.Values, texts []string) {
	if len(texts) == 0 || !slices.ContainsFunc(v.Schema.Features, func(f Field) bool { return f.Private != PrivacyNone }) {
		return
	}
	without(v, texts, func() Scrubber { return NewScrubber(nil, privateTexts(v.Schema.Features, in)) })
}

// WithoutValues takes out of them what they repeat of values that the inputs do not have or
// no longer have: values is asked only where there is a text to look through.
func WithoutValues(v *ModelVersion, values func() Scrubber, texts []string) {
	without(v, texts, values)
}

// WithoutTexts leaves nothing of them but names of classes: of what they may repeat nothing is
// known.
func WithoutTexts(v *ModelVersion, texts []string) {
	without(v, texts, func() Scrubber { return Scrubber{whole: true} })
}

func without(v *ModelVersion, texts []string, scrubber func() Scrubber) {
	written := func(s string) bool {
		return s != "" && !slices.Contains(v.Config.Classes, s) && (v.Info == nil || !slices.Contains(v.Info.Classes, s))
	}
	if !slices.ContainsFunc(texts, written) {
		return
	}
	x := scrubber()
	for i, s := range texts {
		if written(s) {
			texts[i] = x.Long(s)
		}
	}
}

// privateTexts are the values of private features as text.
func privateTexts(fields []Field, in engine.Values) []string {
	var out []string
	for i := range fields {
		if fields[i].Private == PrivacyNone {
			continue
		}
		for _, named := range in {
			step, at := 1, 0
			if named.Name != fields[i].Name {
				if len(in) > 1 || named.Tensor.RowLen() != len(fields) {
					continue
				}
				step, at = len(fields), i // a column of the one matrix
			}
			if named.Tensor.DType() == engine.String {
				for all := engine.Data[string](named.Tensor); at < len(all); at += step {
					out = append(out, all[at])
				}
			} else if all, ok := named.Tensor.Float64s(); ok {
				for ; at < len(all); at += step {
					out = append(out, strconv.FormatFloat(all[at], 'g', -1, 64))
				}
			}
		}
	}
	return out
}
