package capture

import (
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// SampleRule says which predictions of a model keep their features. Every prediction
// stays a row with its outputs, score, status and times, so labels, performance and
// traffic are as exact as without the rule; a row without features has its bins, so
// drift is too. What such a row cannot be is explained, or counted under a reference
// that comes later: there the rows that have features stand for the others, by their
// weight.
type SampleRule struct {
	// Model is a model's name, or "*" for every model that has no rule of its own.
	Model string
	// Share of the predictions keep their features by chance, from 0 to 1. The same
	// id always has the same chance.
	Share float64
	// KeepOutliers keeps the features of requests with a row outside the reference
	// (collector.Outlier), and KeepSlower of those that took longer (0: none).
	KeepOutliers bool
	KeepSlower   time.Duration
}

func checkSampleRules(rules []SampleRule) error {
	seen := map[string]bool{}
	for _, r := range rules {
		switch {
		case r.Model == "":
			return fmt.Errorf("capture: a sample rule without a model")
		case seen[r.Model]:
			return fmt.Errorf("capture: two sample rules for model %q", r.Model)
		case math.IsNaN(r.Share) || r.Share < 0 || r.Share > 1:
			return fmt.Errorf("capture: share %g of model %q is not between 0 and 1", r.Share, r.Model)
		case r.KeepSlower < 0:
			return fmt.Errorf("capture: model %q keeps slower than a negative time", r.Model)
		}
		seen[r.Model] = true
	}
	return nil
}

func (c *Capturer) ruleOf(model string) *SampleRule {
	var all *SampleRule
	for i := range c.cfg.Sample {
		switch r := &c.cfg.Sample[i]; r.Model {
		case model:
			return r
		case "*":
			all = r
		}
	}
	return all
}

// sample takes the features out of a prediction that a rule does not keep, once its
// bins are known: while there is no reference all are kept. A request is kept or not
// as a whole, so that each of its rows is as likely kept as any other's.
func (c *Capturer) sample(p *collector.Prediction, v *collector.ModelVersion, schema *collector.Schema) {
	if len(c.cfg.Sample) == 0 || p.Capture != collector.CaptureFull && p.Capture != collector.CaptureRedacted || p.Route == collector.RouteExplain || p.Status >= 400 || p.Label != "" {
		return
	}
	r := c.ruleOf(p.Model)
	if r == nil || r.Share >= 1 || v.Reference == nil || c.labelled.has(p) {
		return
	}
	ref := v.Reference()
	if ref == nil {
		return
	}
	if r.KeepSlower > 0 && time.Duration(p.Latency.Total) > r.KeepSlower {
		return
	}
	bins := make([]uint16, 0, p.Rows*(len(schema.Features)+1))
	for row := range p.Rows {
		from := len(bins)
		bins = c.cfg.Bins(ref, schema, p, row, bins)
		if r.KeepOutliers && collector.Outlier(ref, schema, p, row, bins[from:]) {
			return
		}
	}
	if chance(p.ID) < r.Share {
		p.FeatureShare = r.Share
		return
	}
	p.Features, p.Bins, p.BinsID = collector.Columns{}, bins, ref.ID
	p.Capture = collector.CaptureSampled
}

// chance is a number from 0 to 1 that an id has, evenly spread whatever ids look
// like (FNV-1a, then the finalizer of SplitMix64).
func chance(id string) float64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return float64((x^x>>31)>>11) / (1 << 53)
}
