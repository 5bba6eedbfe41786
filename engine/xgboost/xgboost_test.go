package xgboost

import (
	"context"
	"os"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// tolerance is relative to max(1, |expected|); sums are float32.
const tolerance = 1e-6

func open(t *testing.T, path string) engine.Model {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Read(data)
	if err != nil {
		t.Fatalf("Read %s: %v", path, err)
	}
	return m
}

func predict(t *testing.T, m engine.Model, rows engine.Values) engine.Values {
	t.Helper()
	in, _, err := engine.Bind(m.Info(), rows)
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), in, []string{"prediction", "margin"})
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return out
}

// TestOracle holds every model of testdata against what XGBoost itself said.
func TestOracle(t *testing.T) {
	exact, all := 0, 0
	for _, o := range enginetest.Oracles(t, "testdata") {
		t.Run(o.Name, func(t *testing.T) {
			m := open(t, o.Model)
			out := predict(t, m, o.Input(t, m.Info()))
			p, g := enginetest.Worst(out[0].Tensor, o.Prediction), enginetest.Worst(out[1].Tensor, o.Margin)
			if p > tolerance || g > tolerance {
				t.Errorf("prediction differs by %.3g, margin by %.3g; want at most %g", p, g, tolerance)
			}
			all++
			if p == 0 && g == 0 {
				exact++
			} else {
				t.Logf("prediction differs by %.3g, margin by %.3g", p, g)
			}
		})
	}
	t.Logf("%d of %d models equal XGBoost to the bit", exact, all)
}

func TestConformance(t *testing.T) {
	for _, o := range enginetest.Oracles(t, "testdata") {
		t.Run(o.Name, func(t *testing.T) {
			m := open(t, o.Model)
			enginetest.TestModel(t, m, o.Input(t, m.Info()))
		})
	}
}
