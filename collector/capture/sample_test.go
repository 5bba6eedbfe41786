package capture

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// watchedVersion is a version with a reference of ages from 20 to 60, whole or none,
// and two cities.
func watchedVersion(t *testing.T) *collector.ModelVersion {
	t.Helper()
	v := version(t)
	var ages, scores []float64
	var cities []string
	for i := range 400 {
		ages, cities, scores = append(ages, 20+float64(i%41)), append(cities, []string{"Oslo", "Bergen"}[i%2]), append(scores, float64(i%101)/100)
	}
	ref, err := stats.NewReference([]stats.Column{
		{Name: "age", Kind: stats.KindNumeric, Numbers: ages},
		{Name: "city", Kind: stats.KindCategorical, Strings: cities},
		{Name: collector.PredictionField, Kind: stats.KindNumeric, Numbers: scores},
	}, "test")
	if err != nil {
		t.Fatal(err)
	}
	v.Reference = func() *stats.Reference { return ref }
	return v
}

func (r *rig) sampledAs(t *testing.T, v *collector.ModelVersion, p *collector.Prediction, ages []float32, cities []string) *collector.Prediction {
	t.Helper()
	scores := make([]float32, len(ages))
	for i := range scores {
		scores[i] = 0.5
	}
	r.tape.records = nil
	if err := r.Prediction(t.Context(), p, v, tensors(t, ages, cities), answer(t, scores...)); err != nil {
		t.Fatal(err)
	}
	got, err := collector.DecodePrediction(r.tape.records[len(r.tape.records)-1].Payload)
	if err != nil {
		t.Fatal(err)
	}
	if got.Capture != p.Capture || got.Features.Empty() != (got.Capture == "sampled") || (got.BinsID == "") != (got.Capture != "sampled") {
		t.Fatalf("said %q, recorded %+v", p.Capture, got)
	}
	return got
}

func withShare(share float64, change func(*SampleRule)) func(*Config) {
	return func(c *Config) {
		c.Sample = []SampleRule{{Model: "*", Share: 0.99}, {Model: "m", Share: share, KeepOutliers: true, KeepSlower: time.Second}}
		if change != nil {
			change(&c.Sample[1])
		}
	}
}

// TestSampledOnesAreRepresented: whatever is kept beside chance, the rows that have
// features estimate what all had, by their weights.
func TestSampledOnesAreRepresented(t *testing.T) {
	r, v := newRig(t, withShare(0.2, nil)), watchedVersion(t)
	rng := rand.New(rand.NewPCG(1, 7))
	var all, estimate, weights float64
	var kept int
	const n = 6000
	for i := range n {
		age := float32(20 + rng.IntN(41))
		if rng.IntN(10) == 0 {
			age += 100 // an outlier, always kept
		}
		p := prediction(1)
		p.ID = fmt.Sprintf("req-%d", i)
		got := r.sampledAs(t, v, p, []float32{age}, []string{"Oslo"})
		all += float64(age)
		if got.Weight != 1 {
			t.Fatalf("a row stands for %g", got.Weight)
		}
		if !got.Features.Empty() {
			kept++
			stand := 1.0
			if got.FeatureShare != 0 {
				stand = 1 / got.FeatureShare
			}
			weights += stand
			estimate += stand * float64(age)
		}
	}
	if math.Abs(estimate/all-1) > 0.05 || math.Abs(weights/n-1) > 0.07 {
		t.Errorf("sum %g estimated as %g, %d rows as %g", all, estimate, n, weights)
	}
	if share := float64(kept) / n; share < 0.25 || share > 0.31 { // 0.1 + 0.9 * 0.2
		t.Errorf("%g of the rows are kept", share)
	}
}

func TestSamplingKeepsWhatTheRuleNames(t *testing.T) {
	r, v := newRig(t, withShare(0, nil)), watchedVersion(t)
	nan := float32(math.NaN())
	slow := prediction(1)
	slow.Latency.Total = int64(2 * time.Second)
	asked := prediction(1)
	asked.Route = collector.RouteExplain
	labelled := prediction(1)
	labelled.Label = "yes"
	for name, c := range map[string]struct {
		p      *collector.Prediction
		ages   []float32
		cities []string
		want   string
	}{
		"usual":               {prediction(1), []float32{30}, []string{"Oslo"}, "sampled"},
		"at the ends":         {prediction(2), []float32{20, 60}, []string{"Oslo", "Bergen"}, "sampled"},
		"above":               {prediction(1), []float32{61}, []string{"Oslo"}, "full"},
		"below, second row":   {prediction(2), []float32{30, 1}, []string{"Oslo", "Oslo"}, "full"},
		"unseen":              {prediction(1), []float32{30}, []string{"Paris"}, "full"},
		"missing, never seen": {prediction(1), []float32{nan}, []string{"Oslo"}, "full"},
		"slow":                {slow, []float32{30}, []string{"Oslo"}, "full"},
		"explained":           {asked, []float32{30}, []string{"Oslo"}, "full"},
		"labelled":            {labelled, []float32{30}, []string{"Oslo"}, "full"},
	} {
		if got := r.sampledAs(t, v, c.p, c.ages, c.cities); got.Capture != c.want || got.Weight != 1 || got.FeatureShare != 0 {
			t.Errorf("%s: %s with weight %g, share %g", name, got.Capture, got.Weight, got.FeatureShare)
		}
	}
	v.Reference = func() *stats.Reference { return nil }
	if got := r.sampledAs(t, v, prediction(1), []float32{30}, []string{"Oslo"}); got.Capture != "full" {
		t.Errorf("without a reference: %s", got.Capture)
	}
	lax, v := newRig(t, withShare(0, func(s *SampleRule) { s.KeepOutliers = false })), watchedVersion(t)
	if got := lax.sampledAs(t, v, prediction(1), []float32{900}, []string{"Oslo"}); got.Capture != "sampled" {
		t.Errorf("an outlier nobody asked to keep: %s", got.Capture)
	}
	other := watchedVersion(t)
	all := newRig(t, func(c *Config) { c.Sample = []SampleRule{{Model: "*", Share: 0}} })
	if got := all.sampledAs(t, other, prediction(1), []float32{30}, []string{"Oslo"}); got.Capture != "sampled" {
		t.Errorf("a rule for every model: %s", got.Capture)
	}
}

// TestSamplingKeepsWhoseLabelCameBefore: by our id and by the caller's, of its tenant,
// for as long as is promised.
func TestSamplingKeepsWhoseLabelCameBefore(t *testing.T) {
	r, v := newRig(t, withShare(0, nil)), watchedVersion(t)
	label := func(id, external string) {
		t.Helper()
		f := &collector.Feedback{PredictionID: id, ExternalID: external, Tenant: collector.DefaultTenant, Label: "yes", ObservedAt: time.Now(), ReceivedAt: time.Now()}
		if err := r.Feedback(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	label("theirs-1", "")
	label("", "order-7")
	check := func(id, external, tenant, want string) {
		t.Helper()
		p := prediction(1)
		p.ID, p.Tenant, p.ExternalIDs = id, tenant, []string{external}
		if got := r.sampledAs(t, v, p, []float32{30}, []string{"Oslo"}); got.Capture != want {
			t.Errorf("%s %q of %s: %s, want %s", id, external, tenant, got.Capture, want)
		}
	}
	check("theirs-1", "", collector.DefaultTenant, "full")
	check("x", "order-7", collector.DefaultTenant, "full")
	check("order-7", "theirs-1", collector.DefaultTenant, "sampled")
	check("theirs-1", "order-7", "another", "sampled")
	check("x", "", collector.DefaultTenant, "sampled")
	for i := range rememberedLabels - 1 {
		label("", fmt.Sprint("later-", i))
	}
	check("x", "order-7", collector.DefaultTenant, "full")
	for i := range 2 * rememberedLabels {
		label("", fmt.Sprint("much later-", i))
	}
	check("x", "order-7", collector.DefaultTenant, "sampled")
	if n := len(r.labelled.now) + len(r.labelled.before); n > 2*rememberedLabels {
		t.Errorf("%d are remembered", n)
	}
}

func TestSampleRulesAreChecked(t *testing.T) {
	for _, rules := range [][]SampleRule{
		{{Share: 0.5}},
		{{Model: "m", Share: 1.5}},
		{{Model: "m", Share: math.NaN()}},
		{{Model: "m", Share: -1}},
		{{Model: "m"}, {Model: "m"}},
		{{Model: "m", KeepSlower: -1}},
	} {
		if _, err := New(Config{Append: new(tape).append, Sample: rules}); err == nil {
			t.Errorf("%+v is taken", rules)
		}
	}
}
