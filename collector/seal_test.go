package collector_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/keys"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

func ring(t testing.TB) *keys.Ring {
	t.Helper()
	r, err := keys.Open(keys.Config{Dir: t.TempDir(), KEK: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

var sealTypes = []engine.DType{engine.Float32, engine.Float64, engine.Float16, engine.Int64, engine.Uint64, engine.Uint8, engine.Bool, engine.String}

// typedModel has one column of each type, and a tensor.
func typedModel() *engine.Info {
	info := &engine.Info{Missing: true, Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}}}
	for _, d := range sealTypes {
		info.Inputs = append(info.Inputs, engine.Spec{Name: d.String(), DType: d, Shape: []int{-1, 1}})
		info.Features = append(info.Features, engine.Feature{Name: d.String()})
	}
	return info
}

// elements are a tensor's own values.
func elements(x *engine.Tensor) any {
	switch x.DType() {
	case engine.Float32:
		return engine.Data[float32](x)
	case engine.Float64:
		return engine.Data[float64](x)
	case engine.Float16:
		return engine.Data[uint16](x)
	case engine.Int64:
		return engine.Data[int64](x)
	case engine.Uint64:
		return engine.Data[uint64](x)
	case engine.Uint8:
		return engine.Data[uint8](x)
	case engine.Bool:
		return engine.Data[bool](x)
	}
	return engine.Data[string](x)
}

func typedRows(t *testing.T, r *rand.Rand, n int) engine.Values {
	t.Helper()
	var out engine.Values
	for _, d := range sealTypes {
		x, err := engine.New(d, n, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			missing := r.IntN(5) == 0
			switch v := elements(x).(type) {
			case []float32:
				if v[i] = float32(r.NormFloat64()); missing {
					v[i] = float32(math.NaN())
				}
			case []float64:
				if v[i] = r.NormFloat64(); missing {
					v[i] = math.NaN()
				}
			case []uint16:
				v[i] = uint16(r.IntN(0x7c00))
			case []int64:
				v[i] = int64(r.Uint64())
			case []uint64:
				v[i] = r.Uint64()
			case []uint8:
				v[i] = uint8(r.Uint32())
			case []bool:
				v[i] = missing
			case []string:
				if v[i] = strings.Repeat("é", r.IntN(40)) + "x"; missing {
					v[i] = ""
				}
			default:
				t.Fatalf("no values of %T", v)
			}
		}
		out = append(out, engine.Named{Name: d.String(), Tensor: x})
	}
	return out
}

// TestSealedRowsOpen: of every type, whatever other fields are, a stored row gives the
// model's own inputs back to the bit, missing values included.
func TestSealedRowsOpen(t *testing.T) {
	r, keyring := rand.New(rand.NewPCG(5, 6)), ring(t)
	at := collector.Scope{Tenant: "t", Model: "m"}
	for round := range 40 {
		info, n := typedModel(), 1+r.IntN(4)
		cfg := collector.ModelConfig{Keys: keyring}
		for _, d := range sealTypes {
			if r.IntN(2) == 0 {
				cfg.Features = append(cfg.Features, collector.FeatureConfig{Name: d.String(), Private: collector.PrivacySeal})
			}
		}
		if round%2 == 0 {
			cfg.Subject = sealTypes[r.IntN(len(sealTypes))].String()
		}
		s, err := collector.NewSchema(info, cfg)
		if err != nil {
			t.Fatal(err)
		}
		in := typedRows(t, r, n)
		cols, err := collector.FlattenFor(at, s.Features, in, n)
		if err != nil {
			t.Fatal(err)
		}
		v, names := (&collector.ModelVersion{Name: "m", Info: info, Schema: s, Config: cfg}).Unsealed()
		if len(names) != len(cfg.Features) || v.Config.PrivateFeature() != "" {
			t.Fatalf("%v of %v", names, cfg.Features)
		}
		for i := range n {
			row := collector.RawRow{SchemaID: s.ID, Features: cols.Row(i, n)}
			if len(names) > 0 {
				if _, err := collector.Unflatten(s, info, []collector.RawRow{row}); !errors.Is(err, collector.ErrRefused) {
					t.Fatalf("without keys: %v", err)
				}
			}
			row, err := collector.OpenRow(at, s, row)
			if err != nil {
				t.Fatal(err)
			}
			got, err := collector.Unflatten(v.Schema, info, []collector.RawRow{row})
			if err != nil {
				t.Fatal(err)
			}
			want, err := in.Slice(i, i+1)
			if err != nil {
				t.Fatal(err)
			}
			for k := range want {
				if fmt.Sprintf("%x", elements(got[k].Tensor)) != fmt.Sprintf("%x", elements(want[k].Tensor)) {
					t.Fatalf("%s: %v, want %v", want[k].Name, elements(got[k].Tensor), elements(want[k].Tensor))
				}
			}
			shown, _ := collector.RowMaps(s, collector.RawRow{Features: cols.Row(i, n)})
			for _, name := range names {
				if x := shown[name]; x != nil && x != collector.Masked {
					t.Fatalf("%s is shown as %v", name, x)
				}
			}
		}
	}
}

// TestSealingFailsClosed: without keys or a place nothing is laid out.
func TestSealingFailsClosed(t *testing.T) {
	info, cfg := typedModel(), collector.ModelConfig{Keys: ring(t), Features: []collector.FeatureConfig{{Name: engine.String.String(), Private: collector.PrivacySeal}}}
	s, err := collector.NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := typedRows(t, rand.New(rand.NewPCG(1, 1)), 2)
	for _, at := range []collector.Scope{{}, {Tenant: "t"}, {Model: "m"}} {
		if c, err := collector.FlattenFor(at, s.Features, in, 2); err == nil || !c.Empty() {
			t.Errorf("%+v: %v, %v", at, c, err)
		}
	}
	doc, err := collector.EncodeSchema(s)
	if err != nil {
		t.Fatal(err)
	}
	read, err := collector.DecodeSchema(doc)
	if err != nil || read.ID != s.ID {
		t.Fatal(err)
	}
	if c, err := collector.FlattenFor(collector.Scope{Tenant: "t", Model: "m"}, read.Features, in, 2); err == nil || !c.Empty() {
		t.Errorf("a schema without keys: %v, %v", c, err)
	}
	if _, ok := read.Unsealed(); ok {
		t.Error("a schema that was read back knows what it was")
	}
	if _, err := collector.OpenRow(collector.Scope{}, read, collector.RawRow{}); err == nil {
		t.Error("it opens")
	}
}

// TestForgottenSubjects: a subject's rows open until the subject is forgotten, others'
// for ever.
func TestForgottenSubjects(t *testing.T) {
	keyring := ring(t)
	info := &engine.Info{
		Missing: true, Inputs: []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, 3}}},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}}, Features: []engine.Feature{{Name: "who"}, {Name: "income"}, {Name: "age"}},
	}
	at := collector.Scope{Tenant: "t", Model: "m"}
	for _, how := range []collector.Privacy{collector.PrivacyDrop, collector.PrivacyHash, collector.PrivacySeal} {
		s, err := collector.NewSchema(info, collector.ModelConfig{
			Keys: keyring, HashKey: bytes.Repeat([]byte{1}, 32), Subject: "who",
			Features: []collector.FeatureConfig{{Name: "who", Private: how}, {Name: "income", Private: collector.PrivacySeal}},
		})
		if err != nil {
			t.Fatal(err)
		}
		nan := float32(math.NaN())
		m, err := engine.Of([]float32{12345678, 1000, 30, 18, 2000, 31, 12345678, 3000, 32, nan, 4000, 33}, 4, 3)
		if err != nil {
			t.Fatal(err)
		}
		cols, err := collector.FlattenFor(at, s.Features, engine.Values{{Name: "input", Tensor: m}}, 4)
		if err != nil {
			t.Fatal(err)
		}
		opens := func(r int) error {
			row, err := collector.OpenRow(at, s, collector.RawRow{Features: cols.Row(r, 4)})
			got := row.Features.F32
			if err == nil && !slices.Equal(got[len(got)-2:], []float32{float32(r+1) * 1000, float32(30 + r)}) {
				t.Errorf("row %d opens as %+v", r, row.Features)
			}
			return err
		}
		for r := range 4 {
			if err := opens(r); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := keyring.Forget(t.Context(), "t", "12345678"); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		name := map[bool]string{true: `"who"`, false: `"income"`}[how == collector.PrivacySeal]
		for r, gone := range []bool{true, false, true, false} {
			err := opens(r)
			if gone != errors.Is(err, collector.ErrForgotten) || gone && (!errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), name)) {
				t.Errorf("who is %s, row %d: %v", how, r, err)
			}
		}
	}
}

// TestKeyedBins: drift of sealed features is that of the features themselves, but for
// what needs an order, and neither reference nor bins tell a value.
func TestKeyedBins(t *testing.T) {
	keyring, r := ring(t), rand.New(rand.NewPCG(3, 9))
	info := &engine.Info{
		Missing: true, Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}},
		Inputs:   []engine.Spec{{Name: "income", DType: engine.Float64, Shape: []int{-1, 1}}, {Name: "city", DType: engine.String, Shape: []int{-1, 1}}, {Name: "grade", DType: engine.Float64, Shape: []int{-1, 1}}},
		Features: []engine.Feature{{Name: "income"}, {Name: "city", Categorical: true}, {Name: "grade", Categorical: true}},
	}
	cfg := collector.ModelConfig{Keys: keyring}
	for _, f := range info.Features {
		cfg.Features = append(cfg.Features, collector.FeatureConfig{Name: f.Name, Private: collector.PrivacySeal})
	}
	s, err := collector.NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	open, _ := s.Unsealed()
	rows := func(n int, shift float64, cities int) (engine.Values, collector.Columns) {
		income, city, grade := make([]float64, n), make([]string, n), make([]float64, n)
		for i := range n {
			income[i], city[i], grade[i] = 12345+shift+r.NormFloat64(), fmt.Sprint("QXCITY", int(math.Abs(r.NormFloat64())*float64(cities))), float64(r.IntN(4))
			if r.IntN(20) == 0 {
				income[i], city[i], grade[i] = math.NaN(), "", math.NaN()
			}
		}
		var vals engine.Values
		for k, v := range []any{income, city, grade} {
			var x *engine.Tensor
			switch v := v.(type) {
			case []float64:
				x, err = engine.Of(v, n, 1)
			case []string:
				x, err = engine.Of(v, n, 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			vals = append(vals, engine.Named{Name: info.Features[k].Name, Tensor: x})
		}
		cols, err := collector.Flatten(open.Features, vals, n)
		if err != nil {
			t.Fatal(err)
		}
		return vals, cols
	}
	const n = 3000
	_, cols := rows(n, 0, 90)
	clear, err := stats.NewReference(collector.StatColumns(open, engine.TaskOther, cols, n, nil, nil), "test")
	if err != nil {
		t.Fatal(err)
	}
	keyed, err := stats.NewReference(collector.StatColumns(open, engine.TaskOther, cols, n, nil, nil), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := collector.SealReference("m", s, keyed); err != nil {
		t.Fatal(err)
	}
	doc := fmt.Sprintf("%+v", keyed)
	if strings.Contains(doc, "QXCITY") || strings.Contains(doc, "1234") || !strings.Contains(fmt.Sprintf("%+v", clear), "QXCITY") || keyed.ID == clear.ID {
		t.Errorf("the reference tells: %.500s", doc)
	}
	vals, cols := rows(n, 0.7, 130)
	sealed, err := collector.FlattenFor(collector.Scope{Tenant: collector.DefaultTenant, Model: "m"}, s.Features, vals, n)
	if err != nil {
		t.Fatal(err)
	}
	binner := &collector.Binner{Keys: func() (collector.Keyring, error) { return keyring, nil }, Failed: func(f string, err error) { t.Errorf("%s: %v", f, err) }}
	count := func(ref *stats.Reference, s *collector.Schema, cols collector.Columns) []stats.Counts {
		out := []stats.Counts{{}, {}, {}, {}}
		p := &collector.Prediction{Tenant: collector.DefaultTenant, Model: "m", Rows: n, Features: cols}
		for i := range n {
			for f, b := range binner.Row(ref, s, p, i, nil) {
				out[f][b]++
			}
		}
		return out
	}
	a := stats.Compare(clear, count(clear, open, cols), n, stats.Options{})
	b := stats.Compare(keyed, count(keyed, s, sealed), n, stats.Options{})
	if len(a.Features) != 3 || len(b.Features) != 3 {
		t.Fatalf("%d and %d features", len(a.Features), len(b.Features))
	}
	for i := range a.Features {
		x, y := a.Features[i], b.Features[i]
		for _, ordered := range []stats.Test{stats.KolmogorovSmirnov, stats.Wasserstein} {
			if _, there := y.Tests[ordered]; there {
				t.Errorf("%s has %s", y.Name, ordered)
			}
			delete(x.Tests, ordered)
		}
		if x.State != y.State || x.MissingReference != y.MissingReference || x.MissingCurrent != y.MissingCurrent || len(x.Tests) != len(y.Tests) || len(y.Tests) != 5 {
			t.Errorf("%+v\n%+v", x, y)
		}
		for name, want := range x.Tests {
			if got := y.Tests[name]; math.Abs(got.Value-want.Value) > 1e-9 || math.Abs(got.Threshold-want.Threshold) > 1e-9 || got.Drifted != want.Drifted {
				t.Errorf("%s %s: %+v, want %+v", x.Name, name, got, want)
			}
		}
	}
	only := stats.Compare(keyed, count(keyed, s, sealed), n, stats.Options{Tests: []stats.Test{stats.KolmogorovSmirnov}})
	if f := only.Features[0]; f.State != stats.StateNoData || !strings.Contains(f.Reason, "sealed") {
		t.Errorf("%+v", f)
	}
	// The order is the key's: another tenant's or feature's is another, the same one's
	// the same.
	again, err := stats.NewReference(collector.StatColumns(open, engine.TaskOther, cols, n, nil, nil), "test")
	if err != nil || collector.SealReference("other", s, again) != nil {
		t.Fatal(err)
	}
	same, err := stats.NewReference(collector.StatColumns(open, engine.TaskOther, cols, n, nil, nil), "test")
	if err != nil || collector.SealReference("m", s, same) != nil {
		t.Fatal(err)
	}
	fresh := count(same, s, sealed)[0]
	if reflect.DeepEqual(fresh, count(keyed, s, sealed)[0]) {
		t.Error("the bins of another reference are those of this one")
	}
	if got := slices.Collect(func(yield func(uint16) bool) {
		for b := range fresh {
			if !yield(b) {
				return
			}
		}
	}); len(got) != 11 {
		t.Errorf("bins %v", got)
	}
	if v, _ := keyed.Fields[0].Fold(keyed.Counts[0]); len(keyed.Fields[0].Slots()) != len(v) || keyed.Fields[0].Slots()[0].Upper != nil {
		t.Error("slots tell edges")
	}
}

// BenchmarkFlattenSealed is what sealing costs beside what the row costs anyway.
func BenchmarkFlattenSealed(b *testing.B) {
	const fields = 30
	info := &engine.Info{Inputs: []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, fields}}}, Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}}}
	for i := range fields {
		info.Features = append(info.Features, engine.Feature{Name: fmt.Sprint("f", i)})
	}
	x, err := engine.Of(make([]float32, fields), 1, fields)
	if err != nil {
		b.Fatal(err)
	}
	for _, sealed := range []int{0, 1, 10} {
		cfg := collector.ModelConfig{Keys: ring(b)}
		for i := range sealed {
			cfg.Features = append(cfg.Features, collector.FeatureConfig{Name: fmt.Sprint("f", i), Private: collector.PrivacySeal})
		}
		s, err := collector.NewSchema(info, cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(sealed, " of 30"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := collector.FlattenFor(collector.Scope{Tenant: "t", Model: "m"}, s.Features, engine.Values{{Name: "input", Tensor: x}}, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
