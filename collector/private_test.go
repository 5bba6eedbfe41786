package collector

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// privateInfo is a model of one matrix, or of one column a feature, of three
// features, the last a category with names.
func privateInfo(columns bool) *engine.Info {
	info := &engine.Info{
		Missing: true, Inputs: []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, 3}}},
		Outputs:  []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}},
		Features: []engine.Feature{{Name: "age"}, {Name: "income"}, {Name: "city", Categorical: true, Categories: []string{"Oslo", "Bergen"}}},
	}
	if columns {
		info.Inputs = nil
		for _, f := range info.Features {
			info.Inputs = append(info.Inputs, engine.Spec{Name: f.Name, DType: engine.Float32, Shape: []int{-1, 1}})
		}
	}
	return info
}

func privateSchema(t *testing.T, info *engine.Info, how map[string]Privacy) *Schema {
	t.Helper()
	cfg := ModelConfig{HashKey: testKey}
	for _, f := range info.Features {
		cfg.Features = append(cfg.Features, FeatureConfig{Name: f.Name, Private: how[f.Name]})
	}
	s, err := NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRedactionIsTheSameForMatrixAndColumns: what is stored of a private field does
// not depend on how its values came, and the other fields are as without it.
func TestRedactionIsTheSameForMatrixAndColumns(t *testing.T) {
	const n = 50
	r := rand.New(rand.NewPCG(1, 2))
	whole := make([]float32, 3*n)
	columns := make([][]float32, 3)
	for i := range n {
		row := []float32{float32(r.IntN(90)), float32(r.NormFloat64() * 1e5), float32(r.IntN(3))}
		if i%7 == 0 {
			row[r.IntN(3)] = float32(math.NaN())
		}
		copy(whole[3*i:], row)
		for j, x := range row {
			columns[j] = append(columns[j], x)
		}
	}
	matrix, err := engine.Of(whole, n, 3)
	if err != nil {
		t.Fatal(err)
	}
	byName := engine.Values{}
	for j, name := range []string{"age", "income", "city"} {
		c, err := engine.Of(columns[j], n, 1)
		if err != nil {
			t.Fatal(err)
		}
		byName = append(byName, engine.Named{Name: name, Tensor: c})
	}
	for _, how := range []map[string]Privacy{
		{"age": PrivacyHash}, {"income": PrivacyBucket, "city": PrivacyMask}, {"age": PrivacyDrop, "income": PrivacyBucket, "city": PrivacyHash}, {"age": PrivacyMask, "income": PrivacyMask, "city": PrivacyMask},
	} {
		a, err := Flatten(privateSchema(t, privateInfo(false), how).Features, engine.Values{{Name: "input", Tensor: matrix}}, n)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Flatten(privateSchema(t, privateInfo(true), how).Features, byName, n)
		if err != nil {
			t.Fatal(err)
		}
		same := func(x, y []float64) bool {
			for i := range x {
				if math.Float64bits(x[i]) != math.Float64bits(y[i]) && !(math.IsNaN(x[i]) && math.IsNaN(y[i])) {
					return false
				}
			}
			return len(x) == len(y)
		}
		if !same(a.F64, b.F64) || !reflect.DeepEqual(a.Str, b.Str) || len(a.F32) != len(b.F32) {
			t.Errorf("%v: %v and %v", how, a, b)
		}
		for i, want := range columns[2] {
			if how["city"] != PrivacyMask {
				break
			}
			k := len(a.Str) / n
			if got := a.Str[i*k+k-1]; (got == "") != math.IsNaN(float64(want)) || got != "" && got != Masked {
				t.Errorf("a masked city is %q", got)
			}
		}
	}
}

func TestHashes(t *testing.T) {
	s := privateSchema(t, privateInfo(false), map[string]Privacy{"age": PrivacyHash, "city": PrivacyHash})
	age, city := &s.Features[0], &s.Features[2]
	if again := keyed(age, "41"); keyed(age, "41") != again || keyed(age, "41") == keyed(age, "42") || keyed(age, "41") == keyed(city, "41") {
		t.Error("hashes are not by field and value")
	}
	if city.text(1) != "Bergen" || city.text(2) != "2" || city.text(0.5) != "0.5" || city.text(-1) != "-1" {
		t.Error("a category is not hashed by its name")
	}
	other, err := NewSchema(privateInfo(false), ModelConfig{HashKey: []byte("another key of many bytes"), Features: []FeatureConfig{{Name: "age", Private: PrivacyHash}}})
	if err != nil {
		t.Fatal(err)
	}
	if keyed(&other.Features[0], "41") == keyed(age, "41") || other.Features[0].KeyID == age.KeyID || other.ID == s.ID {
		t.Error("the key makes no difference")
	}
	doc, err := EncodeSchema(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"0123456789abcdef", "Oslo", "Bergen"} {
		if strings.Contains(string(doc), secret) {
			t.Errorf("the stored schema tells %q", secret)
		}
	}
}

func TestBuckets(t *testing.T) {
	for x, want := range map[float64]float64{
		0: 0, 1: 1, 9.99: 9, 10: 10, 54321: 50000, -54321: -50000, 0.0123: 0.01, 1e300: 1e300, 5e-324: 5e-324, 99999999: 90000000, 0.3: 0.3, 2: 2,
	} {
		if got := bucket(x); got != want {
			t.Errorf("%g falls into %g, want %g", x, got, want)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 10000 {
		x := math.Ldexp(r.NormFloat64(), r.IntN(200)-100)
		b := bucket(x)
		if math.Signbit(b) != math.Signbit(x) || math.Abs(b) > math.Abs(x) || math.Abs(b) < math.Abs(x)/2 || bucket(b) != b {
			t.Fatalf("%g falls into %g", x, b)
		}
	}
	if !math.IsNaN(bucket(math.NaN())) || bucket(math.Inf(-1)) != math.Inf(-1) {
		t.Error("NaN and infinity are not kept")
	}
}

func TestPrivacyThatCannotBe(t *testing.T) {
	tensor := &engine.Info{
		Inputs:  []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 8}}},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1}}},
	}
	for want, c := range map[string]struct {
		info *engine.Info
		cfg  ModelConfig
	}{
		"needs a key": {privateInfo(false), ModelConfig{Features: []FeatureConfig{{Name: "age", Private: PrivacyHash}}}},
		"for numbers": {privateInfo(false), ModelConfig{Features: []FeatureConfig{{Name: "city", Private: PrivacyBucket}}}},
		"is a tensor": {tensor, ModelConfig{Features: []FeatureConfig{{Name: "x", Private: PrivacyMask}}}},
		"needs keys":  {privateInfo(false), ModelConfig{Features: []FeatureConfig{{Name: "age", Private: PrivacySeal}}}},
		"no policy":   {privateInfo(false), ModelConfig{Features: []FeatureConfig{{Name: "age", Private: "hide"}}}},
		"twice":       {privateInfo(false), ModelConfig{Features: []FeatureConfig{{Name: "age", Private: PrivacyDrop}, {Name: "age"}}}},
		"subject":     {privateInfo(false), ModelConfig{Subject: "name"}},
	} {
		if _, err := NewSchema(c.info, c.cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
